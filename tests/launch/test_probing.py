"""The probe over several processes, and interrupted: its figures are those of one process left alone."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modalgate.launch.cli import main

Launch = Callable[..., list[int]]


@pytest.fixture(scope="module")
def encoder(tiny_config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds an encoder of two steps."""
    out = tmp_path_factory.mktemp("runs")
    settings = [f"out={out}", "train.steps=2", "train.checkpoint_every=2"]
    assert main(["pretrain", tiny_config, *settings]) == 0
    return out / "pretrain"


@pytest.fixture(scope="module")
def ask(encoder: Path, packed: Path, launch: Launch) -> Callable[..., Any]:
    """`ask(folder, world, **more)`: statuses of `probe` with features and figures in `folder`."""

    def run(folder: Path, world: int = 1, **more: Any) -> list[int]:
        folder.mkdir(exist_ok=True)
        arguments = ["probe", str(encoder), str(packed), "--folds", "2", "--workers", "0"]
        arguments += ["--cache", str(folder / "features"), "--json", str(folder / "figures.json")]
        script = str(Path(__file__).with_name("prober.py"))
        return launch(arguments, world, script=script, log=str(folder / "log"), **more)

    return run


@pytest.fixture(scope="module")
def figures(ask: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Those of one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert ask(folder) == [0], (folder / "log").read_text()
    return json.loads((folder / "figures.json").read_text())


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_find_the_figures_of_one(
    ask: Callable[..., Any], figures: dict[str, Any], tmp_path: Path, world: int
) -> None:
    assert ask(tmp_path, world) == [0] * world, (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 2
    assert not list((tmp_path / "features").glob("*.parts"))
    assert (tmp_path / "log").read_text().count("Frozen features") == 1  # one process speaks for all


@pytest.mark.parametrize(("world", "resumed"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_killed_while_it_extracts_it_goes_on_from_the_cache(
    ask: Callable[..., Any], figures: dict[str, Any], tmp_path: Path, world: int, resumed: int
) -> None:
    pattern = "features/*.parts/*.safetensors"
    assert ask(tmp_path, world, kill=6, run=str(tmp_path), files=pattern) == [-signal.SIGKILL] * world
    # A batch is kept when it is kept for both encoders.
    one, two = ({path.name for path in folder.iterdir()} for folder in tmp_path.glob("features/*.parts"))
    kept = len(one & two)
    assert 2 <= kept < 8
    (tmp_path / "log").unlink()
    assert ask(tmp_path, resumed) == [0] * resumed, (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert (tmp_path / "log").read_text().count("a batch is extracted") == 8 - kept
