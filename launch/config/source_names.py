"""Names and arguments of tasks and fusions, read from the source: importing the classes would import torch."""

import ast
from functools import cache
from pathlib import Path

from ...shards.errors import choice_error

ROOT = Path(__file__).parents[2]
# The modules and dictionaries with the names of tasks and fusions.
TASKS = ("ssl/tasks_by_name", "PRETEXT_TASKS")
FUSIONS = ("fusion/mechanisms_by_name", "FUSIONS")


def registered(module: str, table: str) -> dict[str, str]:
    """The entries of the dictionary `table` of a module: the class name of each registered name."""
    for node in _parsed(ROOT / f"{module}.py").body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table:
            assert isinstance(node.value, ast.Dict)
            entries = zip(node.value.keys, node.value.values, strict=True)
            return {str(key.value): ast.unparse(value) for key, value in entries if isinstance(key, ast.Constant)}
    raise AssertionError(f"{module}.py has no {table}")


def arguments_of(module: str, table: str, name: str) -> set[str]:
    """Constructor arguments of the class registered as `name`, without those that the backbone and the clips set."""
    found = _constructor(ROOT / f"{module}.py", registered(module, table)[name])
    return found - set(_given(ROOT / f"{module}.py"))


def check_registered(what: str, short: str, table: tuple[str, str], name: str, arguments: list[str]) -> None:
    """Raises `RequestError`, with the nearest choice, for an unknown name, and for arguments that its class lacks.

    what: kind of name in the error of an unknown name.
    short: kind of name in the error of an unknown argument.
    """
    known = registered(*table)
    if name not in known:
        raise choice_error(what, name, known)
    if not arguments:
        return
    accepted = arguments_of(*table, name)
    for argument in arguments:
        if argument not in accepted:
            raise choice_error(f"argument of {short} {name}", argument, accepted)


def _constructor(path: Path, name: str) -> set[str]:
    """Arguments of the constructor of a class that the module at `path` defines or imports."""
    for node in _parsed(path).body:
        if isinstance(node, ast.ImportFrom) and node.level and any(name == entry.name for entry in node.names):
            place = path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
            return _constructor(place, name)
        if isinstance(node, ast.ClassDef) and node.name == name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    given = part.args
                    return {entry.arg for entry in [*given.posonlyargs, *given.args, *given.kwonlyargs]} - {"self"}
            return _constructor(path, ast.unparse(node.bases[0]))
    raise AssertionError(f"{path} has no class {name}")


def _given(path: Path) -> tuple[str, ...]:
    for node in _parsed(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GIVEN":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no GIVEN")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
