"""An MkDocs hook: the package as a tree of links, from which the site's pages of public names are read.

The room `ssl` has no `__init__.py`, so that it does not stand in for the standard library's, and what reads the
sources skips such a folder. In the tree it has one. The tree also works in a checkout of any name.
"""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "tree" / "modalgate"
ROOMS = ("shards", "fusion", "tasks", "launch")


def on_startup(**_: Any) -> None:
    """Builds the tree anew."""
    shutil.rmtree(TREE, ignore_errors=True)
    (TREE / "ssl").mkdir(parents=True)
    for path in [ROOT / "__init__.py", *(ROOT / room for room in ROOMS), *(ROOT / "ssl").iterdir()]:
        (TREE / path.relative_to(ROOT)).symlink_to(path)
    (TREE / "ssl" / "__init__.py").write_text('"""Pretext tasks and the views that they need."""\n', encoding="utf-8")
