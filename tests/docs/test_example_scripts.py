"""The scripts in examples/, run on generated clips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.worlds.write_world import write_world

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `world` (media) and `shards` of RGB and sound."""
    folder = tmp_path_factory.mktemp("examples")
    write_world(folder / "world", "strike", 14, workers=1)
    pack(folder / "world", folder / "shards", PackSettings(modalities=("rgb", "audio"), size=32, fps=8.0), workers=1)
    return folder


def run(name: str, *arguments: Path) -> str:
    command = [sys.executable, EXAMPLES / f"{name}.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here_and_has_30_to_60_lines() -> None:
    scripts = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == {"own_training_loop", "own_gate", "own_pretext_task", "features_of_a_folder"}
    assert all(30 <= lines <= 60 for lines in scripts.values()), scripts


@pytest.mark.slow
def test_own_training_loop_then_features_of_a_folder(made: Path, tmp_path: Path) -> None:
    told = run("own_training_loop", made / "shards", tmp_path / "encoder")
    assert "epoch 2 of 2, 3 batches each: cross_modal/loss" in told
    assert "features of width 32" in told
    assert load_bundle(tmp_path / "encoder").backbone.modalities == ("rgb", "audio")
    lines = run("features_of_a_folder", tmp_path / "encoder", made / "world").splitlines()
    assert len(lines) == 14
    assert all(": nearest " in line for line in lines)


@pytest.mark.slow
def test_own_gate(made: Path, tmp_path: Path) -> None:
    told = run("own_gate", made / "shards", tmp_path)
    weights = [float(line.rpartition(" ")[2]) for line in told.splitlines() if line.startswith("mean gate weight")]
    assert sum(weights) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_own_pretext_task(made: Path, tmp_path: Path) -> None:
    told = run("own_pretext_task", made / "shards", tmp_path)
    assert "chance 0.250" in told
