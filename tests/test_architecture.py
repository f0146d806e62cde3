"""The house stands: who imports whom, what stands where, what the wheel holds, and that `import ssl` still works."""

import ast
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("shards", "fusion", "ssl", "tasks", "launch")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MOST_ENTRIES, MOST_LINES = 12, 400


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The parts of every name that a module in `package` imports from modalgate, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # `from .. import fusion` and `from modalgate import fusion` name the room last.
            targets = [".".join([*base, alias.name]) for alias in node.names]
        for parts in (tuple(target.split(".")) for target in targets):
            if parts[0] == "modalgate" and len(parts) > 1 and parts[1] in ROOMS:
                yield parts[1:]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..launch.config import load", {("launch", "config", "load")}),
        ("from .. import tasks", {("tasks",)}),
        ("import modalgate.launch.cli", {("launch", "cli")}),
        ("from modalgate import ssl, fusion", {("ssl",), ("fusion",)}),
        ("def late():\n    from ..tasks import probing", {("tasks", "probing")}),
        ("from .gates import Fused\nimport ssl\nfrom torch import fusion", {("fusion", "gates", "Fused")}),
    ],
)
def test_the_walk_sees_every_way_to_import(source: str, expected: set[tuple[str, ...]]) -> None:
    assert set(imported(source, ("modalgate", "fusion"))) == expected


def package_of(path: Path) -> tuple[str, ...]:
    return ("modalgate", *path.relative_to(ROOT).parts[:-1])


def place(parts: tuple[str, ...]) -> str:
    """Where a name stands: its innermost folder, `tasks/finetuning/balance`, or a file of a room, `shards/errors`."""
    depth = next((n for n in range(len(parts), 1, -1) if ROOT.joinpath(*parts[:n]).is_dir()), 2)
    return "/".join(parts[:depth])


def test_a_place_is_the_innermost_folder() -> None:
    assert place(("shards", "errors", "DataError")) == "shards/errors"
    assert place(("tasks", "finetuning", "rank_loss", "LossHistory")) == "tasks/finetuning"
    assert place(("tasks", "finetuning", "balance", "aids", "AidsConfig")) == "tasks/finetuning/balance"


def edges() -> dict[str, dict[str, list[str]]]:
    """By place the places of the same room that it imports, each with the files that do."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in MODULES:
        room, *inner = path.relative_to(ROOT).with_suffix("").parts
        if inner[-1] == "__init__" and len(inner) == 1:
            continue
        source = place((room, *inner))
        found.setdefault(source, {})
        for parts in imported(path.read_text(encoding="utf-8"), package_of(path)):
            target = place(parts)
            if parts[0] == room and len(parts) > 1 and target != source:
                found[source].setdefault(target, []).append(path.name)
    return found


def test_no_room_imports_upward() -> None:
    upward = {
        (str(path.relative_to(ROOT)), parts[0])
        for path in MODULES
        for parts in imported(path.read_text(encoding="utf-8"), package_of(path))
        if ROOMS.index(parts[0]) > ROOMS.index(path.relative_to(ROOT).parts[0])
    }
    assert not upward


def test_inner_rooms_import_one_way() -> None:
    graph = edges()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        pytest.fail("\n".join(f"{a} -> {b} by {graph[a][b]}" for a, b in pairwise(circle)))


def test_imports_within_the_package_are_relative() -> None:
    absolute = {
        str(path.relative_to(ROOT))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        if name.split(".")[0] == "modalgate"
    }
    assert not absolute


def test_a_folder_holds_at_most_a_dozen_entries() -> None:
    folders = {path.parent for path in MODULES} | {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    crowded = {}
    for folder in folders:
        entries = [
            entry.name
            for entry in folder.iterdir()
            # Not a module of its own: what the folder is, or what its tests share.
            if entry.name not in ("__init__.py", "__init__.pyi", "conftest.py") and not entry.name.startswith("__py")
        ]
        if len(entries) > MOST_ENTRIES:
            crowded[str(folder.relative_to(ROOT))] = len(entries)
    assert not crowded


def test_no_file_name_stands_twice() -> None:
    scripts = [path for top in ("benchmarks", "docs", "examples") for path in (ROOT / top).rglob("*.py")]
    names = Counter(path.name for path in (*MODULES, *scripts) if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_every_inner_room_says_what_it_is_for() -> None:
    for folder in {path.parent for path in MODULES} - {ROOT / "ssl"}:
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), folder


def test_tests_mirror_the_modules() -> None:
    """A test that is named for a module stands in the module's folder."""
    places = {f"test_{path.name}": path.parent.relative_to(ROOT) for path in MODULES}
    misplaced = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.parent.relative_to(ROOT / "tests") != places.get(path.name, path.parent.relative_to(ROOT / "tests"))
    ]
    assert not misplaced


def test_no_module_is_long() -> None:
    assert MODULES
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


def test_python_started_in_the_repository_finds_the_standard_librarys_ssl() -> None:
    assert not (ROOT / "ssl" / "__init__.py").exists()
    command = [sys.executable, "-c", "import ssl; print(ssl.__file__); ssl.SSLContext"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ROOT not in Path(done.stdout.strip()).resolve().parents or ".venv" in done.stdout


def test_the_wheel_holds_all_five_rooms_and_their_files_and_nothing_else(tmp_path: Path) -> None:
    # A copy: the build writes beside the sources.
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (*ROOMS, "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    root_files = sorted(ROOT.glob("__init__.py*"))
    for path in [*root_files, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))]:
        shutil.copy(path, tree / path.name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tree]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()]
    expected = [*root_files, *(path for path in files if "__pycache__" not in path.parts)]
    assert names == {f"modalgate/{path.relative_to(ROOT).as_posix()}" for path in expected}
    for other in ("report.html.j2", "serve.html", "slurm.sh", "sweep.yaml", "demo-pretrain.yaml", "cli.py"):
        assert any(name.endswith(f"/{other}") for name in names), other
