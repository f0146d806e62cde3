"""Compiled encoders give the same losses and checkpoint names, and are restored afterwards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import EncoderSpec
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.checkpoint import load_checkpoint
from modalgate.launch.training.compiling import compiled
from modalgate.launch.training.loop import train
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.tasks.finetuning.supervised_objective import SupervisedObjective
from torch._inductor.exc import InductorError


@dataclass
class Held:
    """Batches from a list, repeated."""

    batches: list[Batch]
    workers: int = 0

    def train(self, start: int, /) -> Iterator[Batch]:
        while True:
            yield self.batches[start % len(self.batches)]
            start += 1


@pytest.mark.slow
def test_compiled_losses_and_names_equal_the_plain_run(
    tmp_path: Path,
    tiny_encoder: Callable[..., EncoderSpec],
    tiny_backbone: Callable[..., Backbone],
    tiny_batch: Callable[..., Batch],
    tiny_clip: ClipSpec,
) -> None:
    # The second batch lacks a sound: other shapes reach the compiled code than at first.
    batches = [tiny_batch(label=[0, 1, 1, 0]), tiny_batch(label=[1, 0, 1, 0], seed=1, absent={("audio", 2)})]
    curves, names = {}, {}
    for name in ("plain", "compiled"):
        # Wider than elsewhere: with 4 channels torch 2.12 stumbles over shapes that look alike.
        encoder = tiny_encoder(arguments={"depths": [1, 1, 1, 1], "dims": [16, 24, 32, 40]})
        backbone = tiny_backbone(encoders={"video": encoder, "audio": encoder})
        classifier = Classifier(backbone, ["calm", "fight"])
        objective = SupervisedObjective(classifier, tiny_clip, None)
        config = TrainConfig(steps=4, log_every=1, precision="fp32", threads=1, compile=name == "compiled")
        train(objective, Held(batches), config, tmp_path / name, tracker_mode="disabled")
        curves[name] = [line["loss"] for line in read_metrics(tmp_path / name)]
        _, weights, _ = load_checkpoint(tmp_path / name / "checkpoints" / "step-4")
        names[name] = list(weights)
        assert all(module._compiled_call_impl is None for module in objective.modules())
    assert curves["compiled"] == pytest.approx(curves["plain"], abs=1e-4)
    assert len(curves["plain"]) == 4
    assert curves["plain"][0] != curves["plain"][-1]
    assert names["compiled"] == names["plain"]


def test_only_encoders_are_compiled(tiny_backbone: Callable[..., Backbone]) -> None:
    backbone = tiny_backbone()
    with compiled(backbone, True):
        assert all(encoder._compiled_call_impl is not None for encoder in backbone.encoders.values())
        assert backbone._compiled_call_impl is None
    assert all(encoder._compiled_call_impl is None for encoder in backbone.encoders.values())
    with compiled(backbone, False):
        assert all(encoder._compiled_call_impl is None for encoder in backbone.encoders.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's code is built by triton")
def test_missing_compiler_is_rejected(
    tiny_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    refused = pytest.raises(RequestError, match=r"'train\.compile' needs a C\+\+ compiler")
    with refused, compiled(tiny_backbone(), True):
        pass


def test_uncompilable_network_is_reported_in_one_line(tiny_backbone: Callable[..., Backbone]) -> None:
    refused = pytest.raises(RequestError, match=r"'train\.compile': torch .* cannot compile .*shapes.*: set train")
    with refused, compiled(tiny_backbone(), True):
        raise InductorError(AssertionError("shapes"), None)  # pyright: ignore[reportArgumentType]
