"""The probe from the command line: several processes, interruption, multilabel, warnings."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from modalgate.launch.cli import main
from modalgate.shards.index.table import load_index, save_index

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


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_get_the_metrics_of_one(
    ask: Callable[..., Any], figures: dict[str, Any], tmp_path: Path, world: int
) -> None:
    assert ask(tmp_path, world) == [0] * world, (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    # Of the encoder, of the untrained one, and the hashes.
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 3
    assert not list((tmp_path / "features").glob("*.parts"))
    assert (tmp_path / "log").read_text().count("Frozen features") == 1  # one process speaks for all


@pytest.mark.slow
@pytest.mark.parametrize(("world", "resumed"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_killed_extraction_resumes_from_the_cache(
    ask: Callable[..., Any], figures: dict[str, Any], tmp_path: Path, world: int, resumed: int
) -> None:
    # Each process stores three of its batches for both encoders, and then waits.
    killed = {"kill": 6, "run": str(tmp_path), "files": "features/*.parts/*.safetensors"}
    assert ask(tmp_path, world, **killed, environment={"HOLD": "3"}) == [-signal.SIGKILL] * world
    # A batch is kept when it is kept for both encoders.
    one, two = ({path.name for path in folder.iterdir()} for folder in tmp_path.glob("features/*.parts"))
    kept = len(one & two)
    assert 2 <= kept < 8
    (tmp_path / "log").unlink()
    assert ask(tmp_path, resumed) == [0] * resumed, (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert (tmp_path / "log").read_text().count("a batch is extracted") == 8 - kept


@pytest.mark.slow
def test_multilabel_probe_reads_one_column_per_class(
    encoder: Path, several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", str(encoder), str(several), "--multilabel", "--folds", "2", "--workers", "0"]
    command += ["--cache", str(tmp_path / "features"), "--json"]
    assert main([*command, str(tmp_path / "figures"), "--labels", "contact,odd"]) == 0
    found = json.loads((tmp_path / "figures").read_text())
    said = capsys.readouterr().out
    assert "contact" in said
    assert "odd" in said
    (fused,) = [row for row in found["rows"] if row["feature"] == "fused"]
    assert fused["clips"] == len(load_index(several).samples)
    assert len(fused["precisions"]) == 2
    assert fused["mean_average_precision"] == pytest.approx(sum(fused["precisions"]) / 2)
    assert main(["probe", str(encoder), str(several), "--labels", "contact,odd"]) == 2
    assert "set multilabel too" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "none"), "--label", "events", "--solver", "sgd"]) == 2
    assert "one solver" in capsys.readouterr().err


def test_random_split_of_grouped_clips_needs_leaky(
    encoder: Path, several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", str(encoder), str(several), "--folds", "2", "--workers", "0", "--label", "odd"]
    command += ["--cache", str(tmp_path), "--group", ""]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "error: a random split would put clips of one group on both sides" in " ".join(said.split())
    assert main([*command, "--leaky"]) == 0
    assert "2 folds, groups may be split" in " ".join(capsys.readouterr().out.split())


def test_duplicate_clip_in_training_and_test_causes_a_warning(
    encoder: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(packed, shards)
    index = load_index(shards)
    first = next(sample for sample in index.samples if sample.labels["split"] == "train")
    copy = replace(first, key="copied", labels=first.labels | {"split": "test", "group": "another"})
    save_index(replace(index, samples=(*index.samples, copy)), shards)
    command = ["probe", str(encoder), str(shards), "--workers", "0", "--cache", str(tmp_path / "features")]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert f"'{first.key}' and 'copied' (0 of 575 bits differ)" in said
    assert "too high" in said
