"""Class probabilities of batches held in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError
from modalgate.shards.transforms import Preparation
from modalgate.tasks.evaluation.scores import Scores, load_scores, save_scores, score_clips

Build, MakeBatch = Callable[..., Backbone], Callable[..., Batch]


@dataclass
class Held:
    """A stream with its batches in memory."""

    batches: list[Batch]

    def evaluate(self) -> Iterator[Batch]:
        return iter(self.batches)


def test_probabilities_are_the_mean_softmax_over_views(
    planted_classifier: Callable[..., Classifier], tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    batches = [
        tiny_batch(clips=3, segments=2, label=[0, 1, 0], seed=1, absent={("audio", 2)}),
        tiny_batch(clips=3, segments=2, label=[1, 0, 0], seed=2, valid=[True, True, False]),
    ]
    # Every view of every clip has another brightness, from 10 to 230.
    for number, batch in enumerate(batches):
        places = torch.arange(6).view(3, 2) + 6 * number
        batch.streams["rgb"][:] = (10 + 20 * places).view(3, 2, 1, 1, 1, 1).to(torch.uint8)
    classifier, counted = planted_classifier(dropout=0.5).train(), []
    scores = score_clips(classifier, tiny_clip, Held(batches), progress=counted.append)  # pyright: ignore
    assert scores.keys == ["clip-1-0", "clip-1-1", "clip-1-2", "clip-2-0", "clip-2-1"]
    assert scores.labels.tolist() == [0, 1, 0, 1, 0]
    assert counted == [3, 2]
    assert scores.probabilities.shape == (5, 2)
    assert scores.weights.shape == (5, 2)
    row = 0
    for batch in batches:
        means = {name: stream.flatten(2).mean(dim=2) for name, stream in Preparation(tiny_clip)(batch).items()}
        for clip in range(int(batch.valid.sum())):
            there = [name for name in means if bool(batch.present[name][clip].all())]
            views = torch.stack([means[name][clip] for name in there]).mean(dim=0)
            expected = float((1 / (1 + (-views).exp())).mean())
            np.testing.assert_allclose(scores.probabilities[row], [1 - expected, expected], rtol=1e-4, atol=1e-6)
            weights = [(name in there) / len(there) for name in means]
            np.testing.assert_allclose(scores.weights[row], weights, rtol=1e-4, atol=1e-6)
            row += 1
    assert row == 5
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_stream_without_labels_raises(tiny_backbone: Build, tiny_clip: ClipSpec, tiny_batch: MakeBatch) -> None:
    classifier = Classifier(tiny_backbone(), ["calm", "fight"])
    with pytest.raises(AssertionError, match="labels"):
        score_clips(classifier, tiny_clip, Held([tiny_batch()]))  # pyright: ignore[reportArgumentType]


def test_loaded_scores_equal_the_saved_ones_and_damage_raises(tmp_path: Path) -> None:
    file = tmp_path / "results" / "scores.safetensors"
    rows = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    scores = Scores(rows, rows[:, :1], np.array([1, 0]), ["a", "b"])
    save_scores(scores, ["x", "x"], ["calm", "fight"], file)
    again, units, classes = load_scores(file)
    np.testing.assert_array_equal(again.probabilities, scores.probabilities)
    np.testing.assert_array_equal(again.weights, scores.weights)
    assert (again.labels.tolist(), again.keys, units, classes) == ([1, 0], ["a", "b"], ["x", "x"], ["calm", "fight"])
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"scores\.safetensors"):
        load_scores(file)
