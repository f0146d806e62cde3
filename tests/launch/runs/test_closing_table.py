"""The closing table of a command, and its JSON file."""

import json
import math
from pathlib import Path

import pytest
from modalgate.launch.runs.closing_table import print_rejected, print_table, write_json
from modalgate.shards.errors import RequestError
from modalgate.shards.packing.rejected import Rejected, list_rejected


def test_table_shows_every_cell_and_brackets_verbatim(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Rows [a]", ("name", "share"), [("[rgb]", 0.123456), ("none", None)])
    text = capsys.readouterr().out
    for part in ("Rows [a]", "[rgb]", "0.1235", "-"):
        assert part in text


def test_json_has_no_nan_and_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old")
    write_json(path, {"a": math.nan, "b": [1, math.inf, Path("x")], 3: (1.5,)})
    assert json.loads(path.read_text()) == {"a": None, "b": [1, None, "x"], "3": [1.5]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["figures.json"]
    write_json(None, {"a": object()})
    with pytest.raises(RequestError, match="cannot write"):
        write_json(tmp_path / "no" / "figures.json", {})


def test_one_rejected_recording_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rejected.jsonl"
    for number, counted in ((1, "1 recording rejected, "), (2, "2 recordings rejected, ")):
        list_rejected(path, [Rejected(f"{name}.mp4", "it is empty") for name in range(number)])
        print_rejected(path)
        assert capsys.readouterr().out.startswith(counted)
