"""Configs in layers: what a layer adds, changes and removes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from ...fusion.spec import DEFAULTS, BackboneSpec
from ...shards.errors import RequestError

# Settings whose value is one text or a list of texts.
TEXTS = ("data.shards",)
# Alternatives: two ways to set the length of a training, and two sources of weights. The last one given counts.
_LENGTHS = ("steps", "epochs")
_RIVALS = {"steps": "epochs", "epochs": "steps", "pretrained": "weights", "weights": "pretrained"}
# Arguments and weights belong to a choice: another choice in an upper layer does not inherit them. If a layer names
# no choice, the default is chosen.
_ARGUMENTS_OF = {"fusion": ("fusion_arguments", "arguments"), "model": ("arguments", "pretrained", "weights")}
_DEFAULTS = {"fusion": BackboneSpec().fusion, "model": DEFAULTS.model}


class NullText(str):
    """A null where texts are expected: it removes an entry of the layers below; without one it is the text itself."""


def columns_of_texts(declared: Any) -> bool:
    """Whether the `declared` type of a setting is free names with texts, as columns of a label table with values."""
    return get_origin(declared) is dict and get_args(declared)[1:] == (list[str],)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings are merged, everything else is replaced."""
    above = {key: None if isinstance(value, NullText) and key in below else value for key, value in above.items()}
    result = dict(below)
    for key, value in above.items():
        make_way(result, key, value)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def make_way(content: dict[str, Any], key: str, value: Any) -> None:
    """Removes from `content` what `value` at `key` makes obsolete: its alternative, and the arguments of another
    choice.
    """
    if value is not None:
        content.pop(_RIVALS.get(key, ""), None)
    if isinstance(value, str) and key in _ARGUMENTS_OF and (content.get(key) or _DEFAULTS[key]) != value:
        for arguments in _ARGUMENTS_OF[key]:
            content.pop(arguments, None)


def choices_first(settings: Sequence[str]) -> list[str]:
    """`key=value` settings, sorted so that choices come before their arguments."""
    return sorted(settings, key=lambda setting: setting.partition("=")[0].rpartition(".")[2] not in _ARGUMENTS_OF)


def with_texts(hint: Callable[[str], Any], content: Any, texts: Any, key: str = "") -> Any:
    """`content` with the text, as written, of values of settings that are text: `007`, and in a list also `yes`.

    `hint`: the declared type at a dotted key. `texts`: the same YAML with every scalar as text. Values of columns are
    text, as they are in a label table. Elsewhere a single `yes` stays true and is refused later, since a switch may
    have been meant.
    """
    declared = hint(key)
    if columns_of_texts(declared) and isinstance(texts, dict) and "<<" not in texts:
        pairs = zip(texts.items(), content.values(), strict=True)
        return {name: NullText(text) if value is None else text for (name, text), value in pairs}
    if isinstance(content, dict) and isinstance(texts, dict):
        inner = {name: f"{key}.{name}" if key else str(name) for name in content}
        return {name: with_texts(hint, value, texts.get(str(name)), inner[name]) for name, value in content.items()}
    several = declared == list[str] or key in TEXTS
    if several and isinstance(content, list) and isinstance(texts, list):
        return [
            text if isinstance(text, str) and not isinstance(value, str) else value
            for value, text in zip(content, texts, strict=True)
        ]
    number = isinstance(content, int | float) and not isinstance(content, bool)
    wanted = several or declared is str or str in get_args(declared)
    return texts if number and wanted and isinstance(texts, str) else content


def rows_by_name(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with a study's list of fusion names as rows with these names."""
    rows = content.get("rows")
    if not isinstance(rows, list):
        return content
    if strange := next((entry for entry in rows if not isinstance(entry, str)), None):
        raise RequestError(
            f"config key 'rows': {strange!r} is not a fusion's name: give [concat,softmax] or a mapping"
        )
    return content | {"rows": {name: {"fusion": name} for name in rows}}


def without_steps(section: Any) -> Any:
    """A section of a run's record, without the steps computed from its epochs."""
    if not isinstance(section, dict) or section.get("epochs") is None:
        return section
    return {key: value for key, value in section.items() if key != "steps"}


def check_length(name: str, content: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Raises `RequestError` if one layer gives a section both `steps` and `epochs`; between layers the upper one
    counts.
    """
    given = [key for key, sign, text in (entry.partition("=") for entry in settings) if sign and text != "null"]
    for section, entry in content.items():
        if isinstance(entry, dict) and all(entry.get(key) is not None for key in _LENGTHS):
            raise RequestError(f"config '{name}' gives both {section}.steps and {section}.epochs: keep one of them")
    for key in given:
        if key.endswith(".epochs") and f"{key.removesuffix('epochs')}steps" in given:
            raise RequestError(f"{key} and {key.removesuffix('epochs')}steps are both given: keep one of them")
