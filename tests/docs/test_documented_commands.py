"""Commands and imports that the pages show exist: verbs, options, config keys' verbs, Python modules and names."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from modalgate.launch.cli import app
from modalgate.launch.config.config_keys import section_keys, sections
from modalgate.launch.schema import KINDS

from .test_links import PAGES, ROOT

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore


def code_lines(page: Path) -> Iterator[str]:
    """Lines of code blocks, joined after a backslash, and inline code that names a verb."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```python\n.*?^```", "", text, flags=re.M | re.S)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        yield from block.splitlines()
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from (line for line in text.splitlines() if line.startswith("    "))
    yield from (code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith("modalgate "))


def calls(line: str) -> Iterator[list[str]]:
    """What follows `modalgate` in the calls of a line."""
    for part in re.split(r"; (?:do )?|&& ", line.partition(" #")[0]):
        found = re.match(r"\s*(?:\S+=\S+ |time )*(?:modalgate|.*-m modalgate\.launch\.cli)\s+(.*)", part)
        if found:
            yield shlex.split(found[1].replace("[", " ").replace("]", " ").replace("...", " "))


def faults(words: list[str]) -> Iterator[str]:
    """The parts of a call that do not exist."""
    if not words or words[0] in ("VERB", "--version", "--help"):
        return
    command = COMMANDS.get(words[0])
    if command is None:
        yield f"verb {words[0]}"
        return
    rest = words[1:]
    if inner := getattr(command, "commands", None):
        if rest and rest[0] not in inner:
            yield f"verb {words[0]} {rest[0]}"
            return
        command, rest = (inner[rest[0]], rest[1:]) if rest else (command, rest)
    known = {name for entry in command.params for name in (*entry.opts, *entry.secondary_opts)}
    yield from (
        f"{words[0]} {word}"
        for word in (word.partition("=")[0] for word in rest)
        if word.startswith("-") and word not in {*known, "--help", "-h", "--debug"} and not re.match(r"-\d", word)
    )


def test_commands_name_verbs_and_options() -> None:
    wrong = [
        f"{page.relative_to(ROOT).as_posix()}: {fault}"
        for page in PAGES
        for line in code_lines(page)
        for call in calls(line)
        for fault in faults(call)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    modalgate pack A B --size 4 --fps=2", []),
        ("    modalgate bake A B", ["verb bake"]),
        ("    modalgate pack A B --sizes 4", ["pack --sizes"]),
        ("    modalgate config shew", ["verb config shew"]),
        ("    torchrun --nproc_per_node 2 -m modalgate.launch.cli pretrain C --bogus", ["pretrain --bogus"]),
        ("    for s in 0 1; do modalgate demo --speed $s; done", ["demo --speed"]),
    ],
)
def test_wrong_call_is_detected(line: str, expected: list[str]) -> None:
    assert [fault for call in calls(line) for fault in faults(call)] == expected


def test_config_keys_that_pages_set_exist() -> None:
    """Dotted keys as in `train.steps=100`; names of encoders, tasks and label columns are free."""
    keys = [
        re.escape(f"{path}.{key.name}" if path else key.name).replace("NAME", r"[\w-]+")
        for schema in KINDS.values()
        for path, section in sections(schema)
        for key in section_keys(section)
    ]
    keys += [r"data\.where\.\w+", r"model\.fusion_arguments\.\w+", r"(?:tasks|rows|model\.encoders)\.\w+"]
    known = re.compile("|".join(keys))
    assert known.fullmatch("model.encoders.rgb.weights")
    assert not known.fullmatch("train.stepz")
    wrong = {
        f"{page.name}: {key}"
        for page in PAGES
        if "reference" not in page.parts
        for code in [*code_lines(page), *re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))]
        for key in re.findall(r"(?:^|[\s'])([a-z_]+(?:\.\w+)+)=(?!=)", code)
        if not known.fullmatch(key) and not re.search(r"\.(NAME|KEY|COLUMN)", key)
    }
    assert not wrong


def python_blocks() -> dict[str, str]:
    return {
        f"{page.relative_to(ROOT).as_posix()}-{number}": block
        for page in PAGES
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        )
    }


def test_imports_resolve() -> None:
    for name, block in python_blocks().items():
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{name}: {node.module}.{alias.name}"


def test_files_named_in_pages_exist() -> None:
    """Paths in code that start with a folder of this repository, without wildcards."""
    tops = ("shards", "fusion", "ssl", "tasks", "launch", "tests", "docs", "benchmarks")
    missing = set()
    for page in PAGES:
        for code in re.findall(
            r"`([\w./-]+\.(?:py|md|yaml|sh|json|svg|txt))(?:::\w+)?`", page.read_text(encoding="utf-8")
        ):
            # Capitals stand for any folder.
            if code.split("/")[0] in tops and not re.search("/[A-Z]+/", code) and not (ROOT / code).exists():
                missing.add(f"{page.name}: {code}")
    assert not missing
