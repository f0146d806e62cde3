"""Every config key: its type, default, values, and the docstring of its field."""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING as REQUIRED

from ...fusion.own_classes import split_key

WIDTH = 80
_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}


@dataclass(frozen=True)
class Key:
    """One key of a section: its name, its default and values as text, and its meaning."""

    name: str
    default: str
    values: str
    meaning: str


def section_keys(schema: type[Any]) -> list[Key]:
    """The keys of one section, in the order of its fields."""
    hints, meaning = get_type_hints(schema), meanings(schema)
    return [
        Key(entry.name, default_words(entry), value_words(entry, hints[entry.name]), meaning.get(entry.name, ""))
        for entry in fields(schema)
    ]


def sections(schema: type[Any], prefix: str = "") -> Iterator[tuple[str, type[Any]]]:
    """(dotted name, dataclass) of a section and all sections below it; an entry of a mapping is named NAME."""
    yield prefix, schema
    for name, hint in get_type_hints(schema).items():
        for choice in alternatives(hint):
            if is_dataclass(choice):
                yield from sections(choice, join(prefix, name))  # pyright: ignore[reportArgumentType]
            elif (inner := _entry_of(choice)) is not None:
                yield from sections(inner, f"{join(prefix, name)}.NAME")


def known_keys(schema: type[Any], prefix: str = "") -> list[str]:
    """Dotted names of all settings and sections, without the entries of mappings."""
    found = []
    for name, hint in get_type_hints(schema).items():
        found.append(join(prefix, name))
        for choice in alternatives(hint):
            if is_dataclass(choice):
                found += known_keys(choice, join(prefix, name))  # pyright: ignore[reportArgumentType]
    return found


@cache
def meanings(schema: type[Any]) -> dict[str, str]:
    """The attribute docstring of each field that has one."""
    found: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        if not is_dataclass(owner):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for line, below in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[line.target.id] = " ".join(text.split())
                    case _:
                        pass
    return found


def explained(text: str, schema: type[Any]) -> str:
    """The YAML `text` of a config of `schema`, with a comment above every key, wrapped at 80 columns."""
    lines: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        found = re.match(r"( *)([^\s#-].*?):(?: (.*))?$", line)
        if found:
            indent, name, value = found.groups()
            path[len(indent) // 2 :] = [name.strip("'\"")]
            comment = _comment(schema, path, value)
            section = value is None and _holds_keys(hint_at(schema, name))
            if comment and not indent and lines and (section or lines[-1].startswith(" ")):
                lines.append("")
            lines += textwrap.wrap(comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        lines.append(line)
    return "\n".join(lines) + "\n"


def default_words(entry: Field[Any]) -> str:
    """A field's default as YAML on one line: `required` without a default, empty for a section."""
    value = entry.default if entry.default_factory is MISSING else entry.default_factory()
    if value == REQUIRED:
        return "required"
    if is_dataclass(value):
        return ""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def value_words(entry: Field[Any], hint: Any) -> str:
    """The values of a field, as text."""
    if choices := entry.metadata.get("choices"):
        return ", ".join(choices)
    words = [_type_words(choice) + _range_words(entry, choice) for choice in alternatives(hint)]
    return ", or ".join(words)


def hint_at(schema: Any, key: str) -> Any:
    """The declared type at a dotted key; None for an unknown key or a key of any type."""
    hint: Any = schema
    for part in split_key(key):
        for choice in alternatives(hint):
            if is_dataclass(choice):
                hint = get_type_hints(choice).get(part)
                break
            if get_origin(choice) is dict:
                hint = get_args(choice)[1]
                break
        else:
            return None
    return hint


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself if it is none."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def join(prefix: str, name: str) -> str:
    """A dotted key."""
    return f"{prefix}.{name}" if prefix else name


def _comment(schema: type[Any], path: list[str], value: str | None) -> str:
    """The comment above a key whose YAML line gives `value`; empty if the key is not in the schema."""
    parent = hint_at(schema, ".".join(path[:-1])) if path[:-1] else schema
    hint = hint_at(schema, ".".join(path))
    for owner in alternatives(parent):
        if is_dataclass(owner):
            for entry in fields(owner):
                if entry.name == path[-1]:
                    text = meanings(owner).get(entry.name, "")  # pyright: ignore[reportArgumentType]
                    return " ".join(part for part in (text, _limits(entry), _inside(hint, value)) if part)
        elif (inner := _entry_of(owner)) is not None:
            return str(inspect.getdoc(inner)).splitlines()[0]
    return ""


def _limits(entry: Field[Any]) -> str:
    if choices := entry.metadata.get("choices"):
        return f"One of {', '.join(choices)}."
    low, high = entry.metadata.get("range", (None, None))
    # A lower bound of 0 is obvious for counts and strengths.
    limits = "" if (low, high) == (0, None) else _range_words(entry, float).strip(", ")
    return f"{limits[0].upper()}{limits[1:]}." if limits else ""


def _inside(hint: Any, value: str | None) -> str:
    """A sentence that lists the keys of a section, or of a mapping's entries, if `value` is empty and shows none."""
    for choice in alternatives(hint):
        if is_dataclass(choice) and value == "null":
            return f"Keys: {', '.join(entry.name for entry in fields(choice))}."
        if (inner := _entry_of(choice)) is not None and value == "{}":
            return f"Keys of an entry: {', '.join(entry.name for entry in fields(inner))}."
    return ""


def _holds_keys(hint: Any) -> bool:
    return any(is_dataclass(choice) or _entry_of(choice) is not None for choice in alternatives(hint))


def _entry_of(hint: Any) -> type[Any] | None:
    """The dataclass of a mapping's entries, or None."""
    inner = get_args(hint)[1] if get_origin(hint) is dict else None
    return inner if is_dataclass(inner) and isinstance(inner, type) else None


def _type_words(hint: Any) -> str:
    if is_dataclass(hint):
        return "section"
    if _entry_of(hint) is not None:
        return "sections by name"
    if get_origin(hint) is list:
        return "list of numbers" if get_args(hint)[0] in (int, float) else "list"
    return _TYPES.get(hint, "mapping")


def _range_words(entry: Field[Any], hint: Any) -> str:
    if "range" not in entry.metadata or hint not in (int, float):
        return ""
    low, high = entry.metadata["range"]
    return f", at least {low}" if high is None else f", from {low} to {high}"
