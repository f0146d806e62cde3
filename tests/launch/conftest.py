"""A tiny corpus, packed and pretrained on by the command line."""

from pathlib import Path

import pytest
from modalgate.launch.cli import main

FEW = ["data.batch_size=4", "data.workers=0", "wandb=disabled", "train.steps=2"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `world` (media), `shards`, and `runs/demo-pretrain`."""
    folder = tmp_path_factory.mktemp("corpus")
    world, shards = str(folder / "world"), str(folder / "shards")
    assert main(["world", world, "--preset", "strike", "--clips", "32", "--workers", "1"]) == 0
    pack = ["pack", world, shards, "--modalities", "rgb,flow,audio,depth", "--size", "48", "--fps", "8"]
    assert main([*pack, "--workers", "1"]) == 0
    assert main(["pretrain", "demo-pretrain", f"data.shards={shards}", f"out={folder / 'runs'}", *FEW]) == 0
    return folder


@pytest.fixture(scope="session")
def few() -> list[str]:
    """Settings for two small steps."""
    return FEW
