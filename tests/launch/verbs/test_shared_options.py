"""Files of summaries replace only summaries, in every command."""

import re
from pathlib import Path

import pytest
import typer.main
from modalgate.launch.cli import app, main


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["config", "list"], "--json"),
        (["pack", "media", "shards"], "--json"),
        (["probe", "encoder", "shards"], "--json"),
        (["embed", "encoder", "media", "out.npz"], "--json"),
        (["inspect", "shards"], "--png"),
        (["compare", "one", "two"], "--out"),
        (["report", "one"], "--out"),
    ],
)
def test_a_summary_never_replaces_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], option: str
) -> None:
    there = tmp_path / "labels.csv"
    there.write_text("video,label\n")
    assert main([*command, option, str(there)]) == 2
    told = capsys.readouterr().err
    assert re.search(rf"labels.csv' already exists and is not a .*: give another {option}$", told.strip()), told
    assert there.read_text() == "video,label\n"


def test_a_rerun_replaces_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    for _ in range(2):
        assert main(["config", "list", "--json", str(figures)]) == 0
    assert "demo-pretrain" in figures.read_text()


def test_every_option_that_names_an_output_says_whether_it_replaces() -> None:
    """An option of a file or folder to write either has a check, or its command has `--overwrite`."""
    group = typer.main.get_command(app)
    unsaid = []
    for verb, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        options = {name: parameter for parameter in getattr(command, "params", []) for name in parameter.opts}
        unsaid += [
            (verb, name)
            for name in ("--json", "--png", "--out", "--video")
            if name in options
            and "replaces" not in options[name].help.lower()
            and (name in ("--json", "--png") or "--overwrite" not in options)
        ]
    # `auto` resumes what is in its folder.
    assert unsaid == [("auto", "--out")]
