"""Tiny packed corpora, a small config, and real training processes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.cli import main
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.piece import Window
from modalgate.shards.index.table import load_index, save_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.worlds.write_world import write_world
from modalgate.tasks.prediction.torch_scorer import EagerScorer
from modalgate.tasks.records import Table, new_result, save_result

from .given.odd_films import write_odd_films
from .given.served import Served, serve

# With what draws from generators: dropout in a task, dropped modalities, augmentation, a queue and a teacher.
TINY = """
kind: pretrain
data: {{shards: {shards}, segments: 3, seconds: 0.4, frames: 2, size: 32, batch_size: 4, workers: 0}}
model:
  width: 8
  fusion: softmax
  modality_dropout: 0.3
  encoders:
    video: {{model: timm/convnext_atto, arguments: {{depths: [1, 1, 1, 1], dims: [4, 4, 8, 8]}}, pooling: mean}}
    audio: {{model: timm/convnext_atto, arguments: {{depths: [1, 1, 1, 1], dims: [4, 4, 8, 8]}}, pooling: mean}}
tasks:
  correspondence: {{}}
  clip_order: {{arguments: {{dropout: 0.2}}}}
  cross_modal: {{}}
train: {{steps: 12, average: 0.9, log_every: 1, checkpoint_every: 3, threads: 1, precision: fp32}}
wandb: disabled
"""

Launch = Callable[..., list[int]]


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of RGB and sound."""
    folder = tmp_path_factory.mktemp("packed")
    write_world(folder / "world", "strike", 16, workers=1)
    pack(folder / "world", folder / "shards", PackSettings(modalities=("rgb", "audio"), size=32, fps=8.0), workers=1)
    return folder / "shards"


@pytest.fixture(scope="session")
def several(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`packed`, its clips of several classes: the column `events`, and the columns of 0 and 1 `contact` and `odd`."""
    folder = tmp_path_factory.mktemp("several") / "shards"
    shutil.copytree(packed, folder)
    index = load_index(folder)
    samples = []
    for number, sample in enumerate(index.samples):
        held = {"contact": sample.labels["label"] == "contact", "odd": number % 3 == 1}
        told = {name: str(int(holds)) for name, holds in held.items()}
        events = "|".join(name for name, holds in held.items() if holds) or "|"
        samples.append(replace(sample, labels=sample.labels | told | {"events": events}))
    save_index(replace(index, samples=tuple(samples)), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_config(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a pretraining config over `packed`."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY.format(shards=packed), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """`launch(arguments, world=1, **more)`: the exit status of every rank of one command in new processes."""
    script = Path(__file__).parent / "given" / "launched.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, str(script)], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(arguments: list[str], world: int = 1, **more: Any) -> list[int]:
            request = {"arguments": arguments, "world": world, **more}
            print(json.dumps(request), file=process.stdin, flush=True)
            assert process.stdout is not None
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


FEW = ["data.batch_size=4", "data.workers=0", "wandb=disabled", "train.steps=2"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `world` (media), `shards`, and `runs/demo-pretrain`."""
    folder = tmp_path_factory.mktemp("corpus")
    world, shards = str(folder / "world"), str(folder / "shards")
    assert main(["world", world, "--preset", "strike", "--clips", "32", "--workers", "1"]) == 0
    pack = ["pack", world, shards, "--modalities", "rgb,flow,audio,depth", "--size", "48", "--fps", "8"]
    assert main([*pack, "--workers", "1"]) == 0
    watched = [f"data.shards={shards}", f"out={folder / 'runs'}", *FEW, "tensorboard=true"]
    assert main(["pretrain", "demo-pretrain", *watched]) == 0
    return folder


@pytest.fixture(scope="session")
def few() -> list[str]:
    """Settings for two small steps."""
    return FEW


@pytest.fixture
def trained_run(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path) -> Path:
    """A finished fine-tuning of rgb and audio, with its model and its record, but no checkpoint."""
    run = tmp_path / "runs" / "violence"
    classifier = Classifier(tiny_backbone(), ["calm", "fight"]).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_bundle(Bundle(classifier, tiny_clip, 3, "violence", "fight", {"data": "market: 9 clips"}), run / "encoder")
    table = Table("Test clips", ["metric", "value"], [["auc", 0.75]], "40 clips")
    save_result(new_result("finetune", "Fine-tuning", "", [table], []), run)
    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """The windows that the model is given."""
    given: list[Window] = []
    score = EagerScorer.score

    def watched(self: EagerScorer, windows: list[Window]) -> Any:
        given.extend(windows)
        return score(self, windows)

    monkeypatch.setattr(EagerScorer, "score", watched)
    return given


@pytest.fixture(scope="session")
def action_bundle(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A classifier of rgb, sound and an inertial sensor, one of whose classes is a script."""
    classes = ["calm", "fight", "<script>document.title = 'hacked'</script>"]
    classifier = Classifier(tiny_backbone(("rgb", "audio", "inertial"), fusion="softmax"), classes).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("bundle") / "hall"
    save_bundle(Bundle(classifier, tiny_clip, 3, "action", None, {}, {"accuracy (9 clips)": 0.5}, "MIT"), folder)
    return folder


@pytest.fixture(scope="session")
def hall_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds that grow brighter, silent for the first three."""
    generator = np.random.default_rng(0)
    levels = np.linspace(20, 180, 60)[:, None, None, None]
    pictures = (levels + generator.uniform(0, 60, (60, 48, 64, 3))).astype(np.uint8)
    sound = generator.normal(0, 0.2, 6 * 16000).astype(np.float32) * (np.arange(6 * 16000) >= 3 * 16000)
    path = tmp_path_factory.mktemp("film") / "hall.mp4"
    write_video(path, pictures, 10, sound=sound.astype(np.float32), sound_codec="aac")
    return path


@pytest.fixture(scope="session")
def odd_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the films in `ODD_FILMS`."""
    folder = tmp_path_factory.mktemp("odd")
    write_odd_films(folder)
    return folder


@pytest.fixture(scope="session")
def server(action_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`modalgate serve` of that classifier, with a limit of 1 MB and no queue."""
    with serve(action_bundle, tmp_path_factory.mktemp("served"), "--max-mb", "1", "--queue", "0") as served:
        yield served
