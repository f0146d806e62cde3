"""The reference pages and the picture of the house are current."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "docs" / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load("write_reference")
HOUSE = load("draw_house")
WRITTEN: dict[Path, str] = REFERENCE.pages()
DRAWN: str = HOUSE.house()


def test_the_reference_pages_are_current() -> None:
    older = [page.name for page, text in WRITTEN.items() if page.read_text(encoding="utf-8") != text]
    assert not older, "run: python docs/scripts/write_reference.py"


def test_the_commands_page_has_every_verb_and_option() -> None:
    text = WRITTEN[REFERENCE.FOLDER / "commands.md"]
    for name, command in REFERENCE.commands().items():
        part = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for entry in command.params:
            assert (entry.opts[0] if entry.opts[0].startswith("-") else entry.metavar or entry.name.upper()) in part


def test_the_pages_of_rooms_have_every_module() -> None:
    directives = "".join(text for page, text in WRITTEN.items() if page.parent.name == "api")
    for room in REFERENCE.ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = ".".join(("modalgate", *path.relative_to(ROOT).with_suffix("").parts))
            assert path.name == "__init__.py" or f"::: {name}\n" in directives


def test_the_pages_have_every_public_name_with_its_meaning() -> None:
    for room in ("", *REFERENCE.ROOMS):
        text = WRITTEN[REFERENCE.FOLDER / "api" / f"{room or 'modalgate'}.md"]
        stub = ROOT / room / "__init__.pyi"
        for name in re.findall(r" as (\w+)$", stub.read_text(encoding="utf-8"), re.M) if stub.is_file() else []:
            assert re.search(rf"^\| `{name}` \| \[`[\w.]+`\]\([\w.#-]+\) \| \S.* \|$", text, re.M), name


def test_the_picture_of_the_house_is_current() -> None:
    assert HOUSE.TARGET.read_text(encoding="utf-8") == DRAWN, "run: python docs/scripts/draw_house.py"
    assert HOUSE.TARGET.stat().st_size < 60_000


def test_the_picture_has_every_inner_room_and_every_arrow_points_left() -> None:
    for room in HOUSE.FLOORS:
        graph = HOUSE.room_graph(room)
        column = {place: number for number, places in enumerate(HOUSE.columns(graph)) for place in places}
        assert all(column[target] < column[place] for place, targets in graph.items() for target in targets)
        assert all(f">{place}<" in DRAWN for place in graph if len(place) < 13)


def test_implied_arrows_are_omitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "shards"
    (room / "media").mkdir(parents=True)
    (room / "media" / "films.py").write_text("from ..errors import DataError\n")
    (room / "errors.py").write_text("import os\n")
    (room / "stream.py").write_text(
        "from .media import films\nfrom .media.films import DataError\nfrom .errors import X\n"
    )
    monkeypatch.setattr(HOUSE, "ROOT", tmp_path)
    assert HOUSE.room_graph("shards") == {"errors": set(), "media": {"errors"}, "stream": {"media"}}
    assert HOUSE.columns(HOUSE.room_graph("shards")) == [["errors"], ["media"], ["stream"]]


def test_the_page_of_the_architecture_names_every_inner_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    inner = {path.parent for room in REFERENCE.ROOMS for path in (ROOT / room).glob("*/*.py")}
    assert not [folder for folder in inner if f"`{folder.relative_to(ROOT).as_posix()}`" not in page]


def test_the_functions_that_the_architecture_names_stand_in_their_files() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[-3:-1] for line in page.splitlines() if re.match(r"\| \d+\.? ", line)]
    assert len(rows) > 12
    for files, functions in rows:
        sources = "".join((ROOT / name).read_text(encoding="utf-8") for name in re.findall(r"`([\w/.]+)`", files))
        for name in re.findall(r"`([\w.]+)`", functions):
            assert all(re.search(rf"(def|class) {part}\b", sources) for part in name.split(".")), name


def test_examples_of_docstrings_are_code_blocks() -> None:
    tree = load("package_tree")
    example = ">>> one()\n    1\n"
    given = f'def one():\n    """One.\n\n    {example}\n    And more:\n\n    {example}    """\n    return 1\n'
    blocks = "\n    ```pycon\n    >>> one()\n    1\n    ```\n"
    assert tree.with_code_blocks(given).count(blocks) == 2
    for room in tree.ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            text = tree.with_code_blocks(path.read_text(encoding="utf-8"))
            compile(text, str(path), "exec")
            assert text.count("```pycon\n") == len(re.findall(r"^ *```pycon\n(?:.*\n)*?^ *```$", text, re.M)), path
