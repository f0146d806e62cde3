"""Evidence of clips against the scores of each clip alone."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.quality import measure_quality
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.transforms import Preparation
from modalgate.tasks.finetuning.unseen_evidence import unseen_evidence
from modalgate.tasks.robustness.corruptions import degrade_all

NAMES = ("rgb", "audio")


@pytest.fixture
def batches(tiny_batch: Callable[..., Batch]) -> list[Batch]:
    """Four clips of which one has no sound, and three without sound, of which the last is padding."""
    silent = {("audio", number) for number in range(3)}
    return [
        tiny_batch(label=[0, 1, 1, 0], absent={("audio", 2)}, seed=1),
        tiny_batch(3, label=[1, 0, 0], absent=silent, valid=[True, True, False], seed=2),
    ]


class Stored:
    """The evaluation stream of given batches."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.batch_size = batches, 4
        self.index = SimpleNamespace(samples=[key for batch in batches for key in batch.key])

    def evaluate(self, skip_damaged: bool = False) -> Iterator[Batch]:
        assert skip_damaged
        yield from self.batches


def test_each_clip_is_scored_by_the_part_of_its_fold(
    batches: list[Batch], tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    parts = [Classifier(tiny_backbone(), ["calm", "fight"], decision="reliability") for _ in range(2)]
    for part in parts:
        for head in part.unimodal.values():
            torch.nn.init.normal_(head.weight)  # pyright: ignore
    keys = [key for batch in batches for key in batch.key]
    fold_of = {key: number % 2 for number, key in enumerate(keys)}
    groups = {key: f"of {key}" for key in keys}
    stream: Any = Stored(batches)
    found = unseen_evidence(parts, fold_of, tiny_clip, stream, groups, levels=(1.0,))
    assert len(found) == 2
    # The last row is padding.
    kept = [(batch, row) for batch in batches for row in range(len(batch))][:-1]
    for evidence, level in zip(found, (0.0, 1.0), strict=True):
        assert list(evidence.groups) == [f"of {key}" for key in keys[:-1]]
        assert evidence.label.tolist() == [0, 1, 1, 0, 1, 0]
        for number, (batch, row) in enumerate(kept):
            given = degrade_all(batch, "noise", level, tiny_clip)
            streams = Preparation(tiny_clip)(given)
            quality = measure_quality(NAMES, streams, given.present)
            torch.testing.assert_close(evidence.quality[number], quality[row])
            part = parts[number % 2].eval()
            for place, name in enumerate(NAMES):
                there = given.present[name][row]
                assert torch.equal(evidence.present[number, :, place], there)
                if not bool(there.any()):
                    assert not evidence.logits[number, :, place].any()
                    continue
                with torch.no_grad():
                    features = part.backbone.encode(name, streams[name][row : row + 1], there[None]).features
                    expected = part.unimodal[name](features)[0]
                torch.testing.assert_close(evidence.logits[number, :, place], expected, rtol=1e-4, atol=1e-5)
