"""Typed configs: defaults, then a YAML file (and what it is based on), then `key=value` arguments."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..fusion.spec import PRESETS, encoder_of
from ..shards.credentials import masked_values
from ..shards.errors import RequestError, choice_error
from ..shards.modality import modality
from .layering import check_length, choices_first, make_way, merged, rows_by_name, without_steps
from .schema import KINDS, Config, FinetuneConfig, PretrainConfig

SHIPPED = Path(__file__).parent / "configs"
# Said of a file, not of a run: what it configures and what it is a diff of; and what a run folder records.
_HEADER = ("kind", "base", "command", "fingerprint")


def list_configs() -> list[tuple[str, str, str]]:
    """(name, kind, description) of every shipped config; the description is the file's first comment."""
    rows = []
    for path in sorted(SHIPPED.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append((path.stem, str(_read_yaml(path).get("kind")), first.removeprefix("#").strip()))
    return rows


def load_config(kind: str, name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """The config of `kind` that a command runs with.

    Raises `RequestError`, in one line that names the dotted key, for an unknown key or name, a value of a wrong type
    or out of range, and a key that must be given and is not.
    """
    node, _ = _compose(kind, name_or_path, overrides)
    if missing := sorted(OmegaConf.missing_keys(node)):
        raise RequestError(f"config key '{missing[0]}' is not given: add {missing[0]}=VALUE")
    return OmegaConf.to_object(node)  # pyright: ignore[reportReturnType]  (the structured node's own class)


def show_config(name_or_path: str, overrides: Sequence[str] = ()) -> str:
    """The resolved config as YAML; keys that are still to be given read `???`.

    Comments at its end say which encoder each modality gets, of what is given and of the preset.
    """
    node, kind = _compose(None, name_or_path, overrides)
    return f"kind: {kind}\n{OmegaConf.to_yaml(node, resolve=True)}{_encoder_comments(node)}"


def partial_config(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """The config whatever is still to be given: such keys raise `MissingMandatoryValue` when they are read."""
    node, _ = _compose(None, name_or_path, overrides)
    return node


def check_config(name_or_path: str, overrides: Sequence[str] = ()) -> list[str]:
    """The keys that are still to be given; `RequestError` where something is wrong."""
    node, _ = _compose(None, name_or_path, overrides)
    return sorted(OmegaConf.missing_keys(node))


def settings_of(config: Config, command: Sequence[str] = ()) -> dict[str, Any]:
    """`config` as plain data with its kind and the command that asked for it: what a run folder keeps.

    Without the credentials of URLs.
    """
    kind = next(name for name, schema in KINDS.items() if isinstance(config, schema))
    return masked_values({"kind": kind, "command": list(command), **asdict(config)})


def _encoder_comments(node: Any) -> str:
    """A line of comment for the encoder of each modality, or of each kind where all modalities are taken."""
    if node.model is None:
        return ""
    model: Any = OmegaConf.to_object(node.model)
    lines = []
    for name in node.data.modalities or PRESETS[model.preset].encoders:
        found = encoder_of(model, name)
        start = "published weights" if found.pretrained else found.weights or "random weights"
        told = {"arguments": found.arguments, "pooling": found.pooling, "stack": found.stack, "start": start}
        lines.append(f"# encoder of {name}: {found.model}, {', '.join(f'{k} {v}' for k, v in told.items())}\n")
    return "".join(lines)


def _compose(kind: str | None, name_or_path: str, overrides: Sequence[str]) -> tuple[Any, str]:
    """The merged and checked node, and its kind."""
    found, content = _read(name_or_path, ())
    if kind is None and found is None:
        raise RequestError(f"config '{name_or_path}' does not say its kind: add a line `kind: {' | '.join(KINDS)}`")
    kind = kind or str(found)
    if found not in (None, kind):
        raise RequestError(f"config '{name_or_path}' is for `modalgate {found}`, not for `modalgate {kind}`")
    schema = KINDS[kind]
    check_length(name_or_path, content, overrides)
    content = rows_by_name(content)
    for override in choices_first(overrides):
        _assign(schema, content, override)
        content = rows_by_name(content)
    content = _checked(schema, content, "", _known_keys(schema))
    try:
        node = OmegaConf.merge(OmegaConf.structured(schema), content)
        _check_values(schema, OmegaConf.to_container(node, resolve=True), "")
    except OmegaConfBaseException as error:
        raise RequestError(_explain(schema, content, error)) from error
    for name in node.data.modalities:
        modality(name)
    if node.model is not None:
        # Here, and so in a run's record, every field is said; what no layer gives stays with the preset.
        model: Any = OmegaConf.to_object(node.model)
        node.model.encoders = {name: encoder_of(model, name) for name in model.encoders}
    return node, kind


def _read(name_or_path: str, seen: tuple[str, ...]) -> tuple[str | None, dict[str, Any]]:
    """The kind and the content of a file laid over what it is based on."""
    if name_or_path in seen:
        raise RequestError(f"config '{name_or_path}' is based on itself: {' -> '.join((*seen, name_or_path))}")
    shipped, given = SHIPPED / f"{name_or_path}.yaml", Path(name_or_path)
    if "/" not in name_or_path and shipped.is_file():
        path = shipped
    elif given.suffix in (".yaml", ".yml") or "/" in name_or_path:
        path = given / "config.yaml" if given.is_dir() else given
    else:
        raise choice_error("config", name_or_path, [entry.stem for entry in SHIPPED.glob("*.yaml")])
    content = _read_yaml(path)
    if "command" in content:
        # A run's record tells the steps that its epochs came to.
        content = {key: without_steps(entry) for key, entry in content.items()}
    kind, base, *_ = (content.pop(key, None) for key in _HEADER)
    if kind is not None and kind not in KINDS:
        raise choice_error(f"kind in config '{name_or_path}'", str(kind), KINDS)
    if base is None:
        return kind, content
    base_kind, below = _read(str(base), (*seen, name_or_path))
    kind = kind or base_kind
    if kind and base_kind != kind:
        # A base of the other kind lends the sections both have: a fine-tuning reads its clips as pretraining did.
        common = {entry.name for entry in fields(KINDS[kind])} - {"name"}
        below = {key: value for key, value in below.items() if key in common}
    check_length(name_or_path, content, ())
    # A list above takes the place of the rows below, a mapping is merged with them.
    return kind, merged(rows_by_name(below), content)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RequestError(f"no config file at '{path}': give a YAML file, or a name of `modalgate config list`")
    try:
        content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8") or "{}"))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise RequestError(f"config file '{path}' is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RequestError(f"config file '{path}' holds no mapping of keys to values")
    return {str(key): value for key, value in content.items()}


def _assign(schema: type[Any], content: dict[str, Any], override: str) -> None:
    """Sets one `key=value`; a mapping given there replaces the one that was."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RequestError(f"'{override}' is no setting: write key=value")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # pyright: ignore
    except (YAMLError, OmegaConfBaseException) as error:
        raise RequestError(f"config key '{key}': the value '{text}' is no valid YAML") from error
    if str in _alternatives(_hint_at(schema, key)) and value is not None:
        value = value if isinstance(value, str) else text  # name=007 and positive=yes are text, not YAML
    *sections, last = key.split(".")
    for section in sections:
        below = content.get(section)
        # Copied on the way down: the sections may be shared with the layer they came from.
        content[section] = dict(below) if isinstance(below, dict) else {}
        content = content[section]
    make_way(content, last, value)
    content[last] = value


def _checked(hint: Any, value: Any, key: str, known: list[str]) -> Any:
    """`value` without the entries that null removes; `RequestError` for an unknown key or a section that is none."""
    choices = _alternatives(hint)
    schema = next((choice for choice in choices if is_dataclass(choice)), None)
    if value is None and type(None) in choices:
        return None
    if schema is not None:
        if not isinstance(value, dict):
            names = ", ".join(entry.name for entry in fields(schema))
            raise RequestError(f"config key '{key}' is a section, not the value {value!r}: it holds {names}")
        hints = get_type_hints(schema)
        for name in value:
            if name not in hints:
                raise _unknown_key(_join(key, name), known, [_join(key, entry) for entry in hints])
        return {name: _checked(hints[name], entry, _join(key, name), known) for name, entry in value.items()}
    mapping = next((choice for choice in choices if get_origin(choice) is dict), None)
    if mapping is not None and value is None:
        return {}
    if mapping is not None and isinstance(value, dict):
        # Free names (tasks, encoders, arguments): null takes one out of the base.
        inner = get_args(mapping)[1]
        return {
            name: _checked(inner, entry, _join(key, str(name)), known)
            for name, entry in value.items()
            if entry is not None
        }
    if str in choices and isinstance(value, bool):
        raise RequestError(f"config key '{key}': {value!r} is not text: write it in quotes")
    return value


def _unknown_key(key: str, known: list[str], siblings: list[str]) -> RequestError:
    """Near by spelling; else by the last word in another section, or by initials (`lr`)."""
    leaf = key.rpartition(".")[2]
    for path in known:
        name = path.rpartition(".")[2]
        if name == leaf or "".join(word[0] for word in name.split("_")) == leaf:
            return RequestError(f"unknown config key '{key}': did you mean '{path}'?")
    return choice_error("config key", key, siblings if "." in key else known)


def _known_keys(schema: type[Any], prefix: str = "") -> list[str]:
    """Dotted names of all settings, sections included."""
    return list(_walk(schema, prefix))


def _walk(schema: type[Any], prefix: str) -> Iterator[str]:
    for name, hint in get_type_hints(schema).items():
        yield _join(prefix, name)
        for choice in _alternatives(hint):
            if is_dataclass(choice):
                yield from _walk(choice, _join(prefix, name))  # pyright: ignore[reportArgumentType]


def _check_values(schema: type[Any], content: Any, prefix: str) -> None:
    """The choices and ranges that the schema states; `content` is complete and of the right types."""
    hints = get_type_hints(schema)
    for entry in fields(schema):
        value: Any = content[entry.name]
        key = _join(prefix, entry.name)
        if choices := entry.metadata.get("choices"):
            if value not in choices:
                raise choice_error(f"value for config key '{key}'", value, choices)
        elif isinstance(value, int | float) and "range" in entry.metadata:
            low, high = entry.metadata["range"]
            if not (value >= low and (high is None or value <= high)):
                valid = f"at least {low}" if high is None else f"between {low} and {high}"
                raise RequestError(f"config key '{key}' is {value}: it must be {valid}")
        for choice in _alternatives(hints[entry.name]):
            if is_dataclass(choice) and isinstance(value, dict):
                _check_values(choice, value, key)  # pyright: ignore[reportArgumentType]
            elif isinstance(value, dict) and get_origin(choice) is dict and is_dataclass(get_args(choice)[1]):
                for name, inner in value.items():
                    _check_values(get_args(choice)[1], inner, _join(key, str(name)))


def _explain(schema: type[Any], content: dict[str, Any], error: OmegaConfBaseException) -> str:
    key = error.full_key or ""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not key or value is None or (isinstance(value, str) and "${" in value):
        return f"config key '{key}': {str(error).splitlines()[0]}"
    return f"config key '{key}': {value!r} is not {_words(_hint_at(schema, key))}"


def _hint_at(schema: Any, key: str) -> Any:
    """The declared type at a dotted key; `None` where there is no such key or any value goes."""
    hint: Any = schema
    for part in key.split("."):
        for choice in _alternatives(hint):
            if is_dataclass(choice):
                hint = get_type_hints(choice).get(part)
                break
            if get_origin(choice) is dict:
                hint = get_args(choice)[1]
                break
        else:
            return None
    return hint


def _words(hint: Any) -> str:
    if get_origin(hint) is list:
        return "a list such as [a,b]"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return " or ".join(names.get(choice, "a mapping") for choice in _alternatives(hint))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


__all__ = [
    "FinetuneConfig",
    "PretrainConfig",
    "check_config",
    "list_configs",
    "load_config",
    "partial_config",
    "settings_of",
    "show_config",
]
