"""Examples in docstrings give the shown results."""

import doctest
import importlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("shards", "fusion", "ssl", "tasks", "launch")
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_examples_of_all_modules() -> None:
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    names = [
        ".".join(("modalgate", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for path in paths
        if ">>> " in path.read_text(encoding="utf-8")
    ]
    found = {name: doctest.testmod(importlib.import_module(name), optionflags=OPTIONS) for name in names}
    assert not {name: result for name, result in found.items() if result.failed}
