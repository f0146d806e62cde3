"""Classes of other packages, named by a class path `package.module:Class`.

A config that names such a class imports it. A bundle imports only from packages that the caller allows. Nothing here
needs torch.
"""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

from ..shards.errors import RequestError, choice_error

# Environment variable: packages that bundles may import classes from, separated by commas.
ALLOW_VARIABLE = "MODALGATE_ALLOW"
_allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


def is_path(name: str) -> bool:
    """Whether `name` is a class path.

    >>> is_path("mypackage.gates:MyGate"), is_path("softmax")
    (True, False)
    """
    return ":" in name


def package_of(path: str) -> str:
    """The top-level package of a class path.

    >>> package_of("mypackage.gates:MyGate")
    'mypackage'
    """
    return path.partition(":")[0].partition(".")[0]


def split_key(key: str) -> list[str]:
    """The parts of a dotted config key, one of which may be a class path.

    >>> split_key("tasks.mine.nets:Net.weight")
    ['tasks', 'mine.nets:Net', 'weight']
    """
    before, colon, after = key.partition(":")
    if not colon:
        return key.split(".")
    section, dot, module = before.partition(".")
    name, *rest = after.split(".")
    return [section, f"{module}:{name}", *rest] if dot else [f"{before}:{name}", *rest]


def check_path(path: str) -> None:
    """Raises `RequestError` if the path is malformed or its module cannot be found. Imports nothing."""
    module, _, name = path.partition(":")
    parts = module.split(".")
    if not all(part.isidentifier() for part in (*parts, name)):
        raise RequestError(f"'{path}' is not a class path: write package.module:Class")
    if module in sys.modules:
        return
    # `find_spec` of an inner module would import the outer one, so only the top-level name goes through it.
    found = find_spec(parts[0])
    for count in range(1, len(parts)):
        if found is None:
            break
        found = PathFinder.find_spec(".".join(parts[: count + 1]), found.submodule_search_locations or [])
    if found is None:
        raise _not_installed(path, module)


def load_class(path: str, base: type[Any], what: str) -> type[Any]:
    """Imports the class at `path`.

    path: `package.module:Class`.
    base: class that it must be a subclass of.
    what: its role, for error messages.

    Raises `RequestError` if the module cannot be imported or has no such name, or if the name is not a subclass of
    `base`.
    """
    check_path(path)
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise _not_installed(path, error.name or module_name) from error
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise choice_error(f"class in module '{module_name}'", name, classes)
    found = getattr(module, name)
    if not isinstance(found, type) or not issubclass(found, base):
        raise RequestError(f"{what} '{path}' is not a subclass of {base.__module__}.{base.__qualname__}")
    return found


def class_path(kind: type[Any]) -> str:
    """The class path of `kind`, from which `load_class` imports it.

    >>> from collections import OrderedDict
    >>> class_path(OrderedDict)
    'collections:OrderedDict'
    """
    return f"{kind.__module__}:{kind.__qualname__}"


@contextmanager
def allowing(packages: Iterable[str]) -> Iterator[None]:
    """Context in which bundles may also import classes of `packages`."""
    token = _allowed.set(_allowed.get() | set(packages))
    try:
        yield
    finally:
        _allowed.reset(token)


def check_allowed(paths: Iterable[str], allow: Collection[str], place: str) -> None:
    """Raises `RequestError` if a bundle names a class whose package is not allowed or not installed.

    paths: names of the bundle's parts; names that are not class paths are skipped.
    allow: packages that the caller allows, in addition to those of `allowing` and of the variable MODALGATE_ALLOW.
    place: the bundle, for error messages.
    """
    variable = os.environ.get(ALLOW_VARIABLE, "")
    known = {*allow, *_allowed.get(), *(name.strip() for name in variable.split(","))}
    for path in filter(is_path, paths):
        package = package_of(path)
        if package not in sys.modules and find_spec(package) is None:
            raise RequestError(f"bundle '{place}' needs the class '{path}': install the package '{package}'")
        if package not in known:
            raise RequestError(
                f"bundle '{place}' needs the class '{path}', and loading it runs code of the package '{package}': "
                f'if you trust the package, give allow=("{package}",) in Python, or set {ALLOW_VARIABLE}={package}'
            )


def _not_installed(path: str, missing: str) -> RequestError:
    return RequestError(
        f"cannot import '{path}': module '{missing}' not found; install the package '{missing.partition('.')[0]}', "
        "or add its folder to PYTHONPATH"
    )
