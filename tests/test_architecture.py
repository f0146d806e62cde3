"""The house stands: who imports whom, what the wheel holds, and that the standard library's `ssl` is still found."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("shards", "fusion", "ssl", "tasks", "launch")
MODULES = sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))


def rooms_imported(source: str, package: tuple[str, ...]) -> set[str]:
    """The rooms that a module in `package` imports, anywhere in it."""
    targets: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # `from .. import fusion` and `from modalgate import fusion` name the room last.
            targets += [".".join([*base, alias.name]) for alias in node.names]
    parts = [target.split(".") for target in targets]
    return {part[1] for part in parts if part[0] == "modalgate" and len(part) > 1 and part[1] in FLOORS}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..launch.config import load", {"launch"}),
        ("from .. import tasks", {"tasks"}),
        ("import modalgate.launch.cli", {"launch"}),
        ("from modalgate import ssl, fusion", {"ssl", "fusion"}),
        ("def late():\n    from ..tasks import probing", {"tasks"}),
        ("from .gates import Fused\nimport ssl\nfrom torch import fusion", {"fusion"}),
    ],
)
def test_the_walk_sees_every_way_to_import(source: str, expected: set[str]) -> None:
    assert rooms_imported(source, ("modalgate", "fusion")) == expected


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_imports_upward(path: Path) -> None:
    room, *inner = path.relative_to(ROOT).parts[:-1]
    imported = rooms_imported(path.read_text(encoding="utf-8"), ("modalgate", room, *inner))
    above = set(FLOORS[FLOORS.index(room) + 1 :])
    assert not imported & above


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_between_rooms_are_relative(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not [name for name in names if name.split(".")[0] == "modalgate"]


def test_no_module_is_longer_than_400_lines() -> None:
    assert MODULES
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_the_root_of_the_package_holds_its_version_only() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert [type(node) for node in tree.body[1:]] == [ast.Assign]


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
    for name in (*FLOORS, "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tree]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"modalgate/__init__.py"} | {f"modalgate/{path.relative_to(ROOT).as_posix()}" for path in MODULES}
    configs = {f"modalgate/launch/configs/{path.name}" for path in (ROOT / "launch" / "configs").glob("*.yaml")}
    pages = {f"modalgate/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("[tl]a*/*.html*")}
    assert {"modalgate/tasks/report.html.j2", "modalgate/launch/serve.html"} <= pages
    assert configs
    others = {"modalgate/launch/slurm.sh", "modalgate/launch/sweep.yaml"}
    assert names == expected | configs | pages | others
    for room in FLOORS:
        assert any(name.startswith(f"modalgate/{room}/") for name in names)
