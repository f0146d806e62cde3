"""Typed configs: defaults, then a YAML file with its base, then `key=value` settings."""

import textwrap
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ...fusion.own_classes import split_key
from ...fusion.spec import PRESETS, encoder_of
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.index.table import load_index
from ...shards.media.credentials import masked_values
from ...shards.modality import MODALITIES, declare, modality, plain_modality
from ..schema import KINDS, Config, FinetuneConfig, PretrainConfig
from .choosing import with_choices
from .config_keys import alternatives, explained, hint_at, join, known_keys
from .defaults import Choice
from .layers import (
    TEXTS,
    NullText,
    check_length,
    choices_first,
    columns_of_texts,
    make_way,
    merged,
    rows_by_name,
    with_texts,
    without_steps,
)

SHIPPED = Path(__file__).parent / "shipped"
# Keys of a file that are not settings: its kind and its base, and what a run folder records.
_HEADER = ("kind", "base", "command", "fingerprint")


def list_configs() -> list[tuple[str, str, str]]:
    """(name, kind, description) of every shipped config; the description is the file's first comment."""
    rows = []
    for path in sorted(SHIPPED.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append((path.stem, str(_read_yaml(path).get("kind")), first.removeprefix("#").strip()))
    return rows


def load_config(
    kind: str,
    name_or_path: str | None,
    overrides: Sequence[str] = (),
    report: Callable[[list[Choice]], None] | None = None,
) -> Config:
    """The config of `kind` that a command runs with; settings that it leaves open are chosen from its shards.

    `name_or_path`: a shipped config, a YAML file or a run folder; None: only `overrides`. `report` is called with the
    choices. Raises `RequestError`, in one line with the dotted key, for an unknown key or name, a value of a wrong
    type or out of range, and a missing required key.
    """
    node, _, choices = _compose(kind, name_or_path, overrides)
    if report is not None:
        report(choices)
    if missing := sorted(OmegaConf.missing_keys(node)):
        raise RequestError(f"config key '{missing[0]}' is missing: add {missing[0]}=VALUE")
    return OmegaConf.to_object(node)  # pyright: ignore[reportReturnType]  (the structured node's own class)


def show_config(name_or_path: str, overrides: Sequence[str] = (), plain: bool = False) -> str:
    """The resolved config as YAML, with a comment above every key unless `plain`.

    Missing required keys are `???`. Comments at the end name the encoder of each modality.
    """
    node, kind, _ = _compose(None, name_or_path, overrides)
    text, encoders = OmegaConf.to_yaml(node, resolve=True), _encoder_comments(node)
    if kind == "pretrain" and not node.tasks:
        # Without tasks the shards choose them; an empty mapping would mean none.
        text = text.replace("\ntasks: {}\n", "\n")
        encoders = f"# tasks: chosen from the shards\n{encoders}"
    if plain:
        return f"kind: {kind}\n{text}{encoders}"
    _, how = config_kind(name_or_path, overrides)
    verb = f"# The command that runs this config: {', '.join(KINDS)}.\n" + (f"# Not given: {how}.\n" if how else "")
    return f"{verb}kind: {kind}\n{explained(text, KINDS[kind])}{encoders}"


def config_kind(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[str, str]:
    """The command that runs a config and, if its YAML does not name it, how it was inferred."""
    found, content = _read(name_or_path, ())
    return (found, "") if found is not None else _kind_of([*content, *_sections(overrides)])


def partial_config(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """The config with missing required keys: reading one raises `MissingMandatoryValue`."""
    node, _, _ = _compose(None, name_or_path, overrides)
    return node


def check_config(name_or_path: str, overrides: Sequence[str] = ()) -> list[str]:
    """The missing required keys. Raises `RequestError` if anything is wrong."""
    node, kind, _ = _compose(None, name_or_path, overrides)
    given = [*_read(name_or_path, ())[1], *_sections(overrides)]
    if kind == "pretrain" and "tasks" in given and not node.tasks:
        raise RequestError(
            "config key 'tasks' is empty: give at least one pretext task, or remove the key: the shards then choose"
        )
    return sorted(OmegaConf.missing_keys(node))


def settings_of(config: Config, command: Sequence[str] = ()) -> dict[str, Any]:
    """`config` as plain data with its kind and the command that started it, as a run folder records it.

    Without the credentials of URLs.
    """
    kind = next(name for name, schema in KINDS.items() if isinstance(config, schema))
    return masked_values({"kind": kind, "command": list(command), **asdict(config)})


def _encoder_comments(node: Any) -> str:
    """A comment line for the encoder of each modality, or of each kind if all modalities are used."""
    if node.model is None:
        return ""
    model: Any = OmegaConf.to_object(node.model)
    lines = []
    for name in node.data.modalities or PRESETS[model.preset].encoders:
        found = encoder_of(model, name)
        start = "published weights" if found.pretrained else found.weights or "random weights"
        shown = {"arguments": found.arguments, "pooling": found.pooling, "stack": found.stack, "start": start}
        line = f"encoder of {name}: {found.model}, {', '.join(f'{key} {value}' for key, value in shown.items())}"
        lines += textwrap.wrap(line, 80, initial_indent="# ", subsequent_indent="#   ")
    return "".join(f"{line}\n" for line in lines)


def _compose(kind: str | None, name_or_path: str | None, overrides: Sequence[str]) -> tuple[Any, str, list[Choice]]:
    """The merged and checked node, its kind, and the chosen settings."""
    found, content = (kind, {}) if name_or_path is None else _read(name_or_path, (), kind)
    kind = found or _kind_of([*content, *_sections(overrides)])[0]
    schema = KINDS[kind]
    check_length(name_or_path or "", content, overrides)
    content = rows_by_name(content)
    for override in choices_first(overrides):
        _assign(schema, content, override)
        content = rows_by_name(content)
    _declare(content)
    content, choices = with_choices(kind, _checked(schema, content, "", known_keys(schema)))
    try:
        node = OmegaConf.merge(OmegaConf.structured(schema), content)
        _check_values(schema, OmegaConf.to_container(node, resolve=True), "")
    except OmegaConfBaseException as error:
        raise RequestError(_explain(schema, content, error)) from error
    for name in node.data.modalities:
        modality(name)
    if node.model is not None:
        # Every field is set here, and so in a run's record; fields that no layer sets are the preset's.
        model: Any = OmegaConf.to_object(node.model)
        node.model.encoders = {name: encoder_of(model, name) for name in model.encoders}
    return node, kind, choices


def _declare(content: dict[str, Any]) -> None:
    """Declares the modalities of `data.declare`, and those of the shards if the config names unknown ones."""
    data = content.get("data")
    data = data if isinstance(data, dict) else {}
    given, wanted = data.get("declare"), data.get("modalities")
    for text in given if isinstance(given, list) else ():
        declare(plain_modality(str(text)))
    if data.get("shards") and isinstance(wanted, list) and any(str(name) not in MODALITIES for name in wanted):
        # Shards that cannot be read are reported where they are used.
        with suppress(RequestError, DataError):
            load_index(data["shards"])


def _read(name_or_path: str, seen: tuple[str, ...], verb: str | None = None) -> tuple[str | None, dict[str, Any]]:
    """The kind, if one is stated, and the content of a file merged over its base.

    `verb` is the kind of a file that states none. Raises `RequestError` if the file states another.
    """
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
        # A run's record has the steps computed from its epochs.
        content = {key: without_steps(entry) for key, entry in content.items()}
    kind, base, *_ = (content.pop(key, None) for key in _HEADER)
    if kind is not None and kind not in KINDS:
        raise choice_error(f"kind in config '{name_or_path}'", str(kind), KINDS)
    if kind is not None and verb not in (None, kind):
        raise RequestError(f"config '{name_or_path}' is for `modalgate {kind}`, not `modalgate {verb}`")
    kind = kind or verb
    if base is None:
        return kind, content
    base_kind, below = _read(str(base), (*seen, name_or_path))
    base_kind = base_kind or _kind_of(below)[0]
    if kind is None:
        # The base's kind, unless the file has keys that only another kind has.
        kind = _kind_of(content)[0] if _kinds_with(set(content) - _names(base_kind)) else base_kind
    if base_kind != kind:
        # A base of another kind gives the sections that both have: fine-tuning reads clips as pretraining did.
        below = {key: value for key, value in below.items() if key in _names(kind) - {"name", "encoder"}}
    check_length(name_or_path, content, ())
    # A list replaces the rows below it, a mapping is merged with them.
    return kind, merged(rows_by_name(below), content)


def _kind_of(keys: Collection[str]) -> tuple[str, str]:
    """The kind that most of these top-level keys belong to (pretraining if none does), and the key that decides."""
    started = "encoder" in keys  # a pretraining may start from one too, but then it has other keys
    kind = max(KINDS, key=lambda name: (len(_names(name) & set(keys)), started and name == "finetune"))
    others = set().union(*(_names(name) for name in KINDS if name != kind))
    told = next((key for key in keys if key in _names(kind) - others), None)
    if told is None and started and kind == "finetune":
        told = "encoder"
    return kind, f"{kind} is assumed" if told is None else f"key '{told}' means {kind}"


def _kinds_with(keys: Collection[str]) -> list[str]:
    """The kinds that have any of these top-level keys."""
    return [kind for kind in KINDS if _names(kind) & set(keys)]


def _names(kind: str) -> set[str]:
    return {entry.name for entry in fields(KINDS[kind])}


def _sections(overrides: Sequence[str]) -> list[str]:
    """The top-level keys of `key=value` settings."""
    return [override.partition("=")[0].partition(".")[0] for override in overrides]


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RequestError(f"no config file at '{path}': give a YAML file, or a name of `modalgate config list`")
    try:
        text = path.read_text(encoding="utf-8") or "{}"
        content = with_texts(_hint, OmegaConf.to_container(OmegaConf.create(text)), yaml.load(text, yaml.BaseLoader))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise RequestError(f"config file '{path}' is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RequestError(f"config file '{path}' does not hold a mapping of keys to values")
    return {str(key): value for key, value in content.items()}


def _hint(key: str) -> Any:
    """The declared type at a dotted key of a config of any kind."""
    return next((found for found in (hint_at(schema, key) for schema in KINDS.values()) if found is not None), None)


def _assign(schema: type[Any], content: dict[str, Any], override: str) -> None:
    """Sets one `key=value`; a mapping replaces the previous one."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RequestError(f"'{override}' is not a setting: write key=value")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # pyright: ignore
    except (YAMLError, OmegaConfBaseException) as error:
        raise RequestError(f"config key '{key}': the value '{text}' is not valid YAML") from error
    hint = hint_at(schema, key)
    if columns_of_texts(hint_at(schema, key.rpartition(".")[0])):
        texts = yaml.load(text, yaml.BaseLoader)  # values in a label table are text
        value = texts if value is not None else NullText(text)
    elif str in alternatives(hint) and value is not None:
        value = value if isinstance(value, str) else text  # name=007 and positive=yes are text, not YAML values
    elif (hint == list[str] or key in TEXTS) and value is not None:
        texts = yaml.load(text, yaml.BaseLoader)  # classes=[007,yes] holds text: this loader makes only text
        value = texts if isinstance(texts, list) or isinstance(value, str | dict) else text
    elif isinstance(value, dict):
        value = with_texts(_hint, value, yaml.load(text, yaml.BaseLoader), key)
    *sections, last = split_key(key)
    for section in sections:
        below = content.get(section)
        # Sections are copied: they may be shared with the layer they came from.
        content[section] = dict(below) if isinstance(below, dict) else {}
        content = content[section]
    make_way(content, last, value)
    content[last] = None if isinstance(value, NullText) and last in content else value


def _checked(hint: Any, value: Any, key: str, known: list[str]) -> Any:
    """`value` without the entries that null removes. Raises `RequestError` for an unknown key, or a value for a
    section.
    """
    choices = alternatives(hint)
    schema = next((choice for choice in choices if is_dataclass(choice)), None)
    if value is None and type(None) in choices:
        return None
    if schema is not None:
        if not isinstance(value, dict):
            names = ", ".join(entry.name for entry in fields(schema))
            raise RequestError(
                f"config key '{key}' is a section, not the value {value!r}: set one of its keys {names}"
            )
        hints = get_type_hints(schema)
        for name in value:
            if name not in hints:
                raise _unknown_key(join(key, name), known, [join(key, entry) for entry in hints])
        return {name: _checked(hints[name], entry, join(key, name), known) for name, entry in value.items()}
    if get_origin(hint) in (dict, list) and value is None:
        return get_origin(hint)()
    if get_origin(hint) is dict and isinstance(value, dict):
        # Free names (tasks, encoders, arguments): null removes an entry of the base.
        inner = get_args(hint)[1]
        if inner == list[str]:
            value = {name: _texts(entry, join(key, str(name))) for name, entry in value.items()}
        return {
            name: _checked(inner, entry, join(key, str(name)), known)
            for name, entry in value.items()
            if entry is not None
        }
    if str in choices and isinstance(value, bool):
        raise RequestError(f"config key '{key}': {value!r} is not text: write it in quotes")
    return value


def _texts(value: Any, key: str) -> Any:
    """A list of texts; a single text becomes a list, and a number its digits."""
    texts = value if isinstance(value, list) else [value]
    if wrong := [text for text in texts if isinstance(text, bool)]:
        raise RequestError(f"config key '{key}': {wrong[0]!r} is not text: write it in quotes")
    return [str(text) for text in texts] if all(isinstance(text, str | int | float) for text in texts) else value


def _unknown_key(key: str, known: list[str], siblings: list[str]) -> RequestError:
    """The error for an unknown key: the nearest by spelling, by last word or by initials (`lr`), or in another
    command.
    """
    leaf = key.rpartition(".")[2]
    if others := _kinds_with([key]):
        verbs = " or ".join(f"`modalgate {kind}`" for kind in others)
        return RequestError(f"config key '{key}' is for {verbs}, not for this config")
    for path in known:
        name = path.rpartition(".")[2]
        if name == leaf or "".join(word[0] for word in name.split("_")) == leaf:
            return RequestError(f"unknown config key '{key}': did you mean '{path}'?")
    return choice_error("config key", key, siblings if "." in key else known)


def _check_values(schema: type[Any], content: Any, prefix: str) -> None:
    """Checks the schema's choices and ranges; `content` is complete and has the right types."""
    hints = get_type_hints(schema)
    for entry in fields(schema):
        value: Any = content[entry.name]
        key = join(prefix, entry.name)
        if "texts" in entry.metadata:
            texts = value if isinstance(value, list) else [value]
            if not texts or not all(isinstance(text, str) and text for text in texts):
                raise RequestError(f"config key '{key}': {value!r} is not text or a list such as [a,b]")
        elif choices := entry.metadata.get("choices"):
            if value not in choices:
                raise choice_error(f"value for config key '{key}'", value, choices)
        elif isinstance(value, int | float) and "range" in entry.metadata:
            low, high = entry.metadata["range"]
            if not (value >= low and (high is None or value <= high)):
                valid = f"at least {low}" if high is None else f"between {low} and {high}"
                raise RequestError(f"config key '{key}' is {value}: it must be {valid}")
        for choice in alternatives(hints[entry.name]):
            if is_dataclass(choice) and isinstance(value, dict):
                _check_values(choice, value, key)  # pyright: ignore[reportArgumentType]
            elif isinstance(value, dict) and get_origin(choice) is dict and is_dataclass(get_args(choice)[1]):
                for name, inner in value.items():
                    _check_values(get_args(choice)[1], inner, join(key, str(name)))


def _explain(schema: type[Any], content: dict[str, Any], error: OmegaConfBaseException) -> str:
    key = error.full_key or ""
    value: Any = content
    for part in split_key(key):
        value = value.get(part) if isinstance(value, dict) else None
    if not key or value is None or (isinstance(value, str) and "${" in value):
        return f"config key '{key}': {str(error).splitlines()[0]}"
    return f"config key '{key}': {value!r} is not {_words(hint_at(schema, key))}"


def _words(hint: Any) -> str:
    if get_origin(hint) is list:
        return "a list such as [a,b]"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return " or ".join(names.get(choice, "a mapping") for choice in alternatives(hint))


__all__ = [
    "FinetuneConfig",
    "PretrainConfig",
    "check_config",
    "config_kind",
    "list_configs",
    "load_config",
    "partial_config",
    "settings_of",
    "show_config",
]
