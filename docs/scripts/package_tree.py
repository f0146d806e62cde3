"""An MkDocs hook: a copy of the package, from which the site's pages of public names are read.

The room `ssl` has no `__init__.py`, so that it does not stand in for the standard library's, and what reads the
sources skips such a folder. In the copy it has one. The copy also works in a checkout of any name. Examples in its
docstrings are code blocks: Markdown takes `>>>` for a quotation.
"""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "tree" / "modalgate"
ROOMS = ("shards", "fusion", "ssl", "tasks", "launch")


def on_startup(**_: Any) -> None:
    """Builds the tree anew."""
    shutil.rmtree(TREE, ignore_errors=True)
    for path in [ROOT / "__init__.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py*")))]:
        if path.suffix in (".py", ".pyi"):
            target = TREE / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(with_code_blocks(path.read_text(encoding="utf-8")), encoding="utf-8")
    (TREE / "ssl" / "__init__.py").write_text('"""Pretext tasks and the views that they need."""\n', encoding="utf-8")


def with_code_blocks(source: str) -> str:
    """The source with each example of a docstring, from `>>>` to an empty line or the end, as a code block."""
    lines: list[str] = []
    indent: str | None = None
    for line in source.split("\n"):
        text = line.strip()
        if indent is not None and (not text or text.startswith('"""')):
            lines.append(f"{indent}```")
            indent = None
        if indent is None and text.startswith(">>> "):
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}```pycon")
        lines.append(line)
    return "\n".join(lines)
