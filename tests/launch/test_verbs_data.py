"""The data verbs from the command line, on a corpus they make themselves."""

import json
from pathlib import Path

import pytest
from modalgate.launch import cli


def test_world_writes_media_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "corpus", tmp_path / "world.json"
    arguments = ["world", str(out), "--preset", "strike", "--clips", "14", "--workers", "1", "--json", str(figures)]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "ceiling" in captured.out or "best accuracy" in captured.out
    assert "world strike 14/14" in captured.err
    assert len(list((out / "video").glob("*.mkv"))) == 14
    assert (out / "labels.csv").is_file()
    assert json.loads(figures.read_text())["clips"] == 14
    assert cli.main(arguments) == 2
    assert "already holds something" in capsys.readouterr().err
