"""Diagnosing & Re-learning against its equations, on clips whose features are planted."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import sklearn.cluster  # noqa: F401  takes seconds, which no single test should count
import torch
from modalgate.fusion.classifier import Classifier
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.tasks.finetuning.balance.relearning import (
    Relearning,
    modality_features,
    purity,
    separability,
    separability_gaps,
)

MakeClassifier, MakeBatch = Callable[..., Classifier], Callable[..., Batch]


@dataclass
class Batches:
    """A stream of given batches."""

    batches: Sequence[Batch]

    def evaluate(self) -> Iterator[Batch]:
        return iter(self.batches)


def test_purity_is_the_share_of_majority_labels() -> None:
    generator = np.random.default_rng(0)
    clusters, labels = generator.integers(0, 4, 60), generator.integers(0, 3, 60)
    right = 0
    for cluster in range(4):
        inside = [label for label, own in zip(labels, clusters, strict=True) if own == cluster]
        right += max(inside.count(label) for label in range(3))
    assert purity(clusters, labels) == pytest.approx(right / 60)


def test_separability_of_planted_clusters() -> None:
    labels = np.repeat([0, 1, 2], 10)
    noise = np.random.default_rng(0).normal(0, 0.01, (30, 2))
    # The second feature has a small scale: without scaling only the first one would count.
    apart = np.stack([labels == 0, (labels == 1) * 1e-3], axis=1) + noise * [1, 1e-3]
    assert separability(apart, labels, 3) == 1.0
    # Each cluster holds seven clips of one class and three of another.
    mixed = labels.copy()
    for start in (0, 10, 20):
        mixed[start : start + 3] = (labels[start] + 1) % 3
    assert separability(apart, mixed, 3) == pytest.approx(0.7)
    # Fewer points than classes, and a single point.
    assert separability(np.ones((4, 2)), np.array([0, 0, 0, 1]), 3) == 0.75


def test_gaps_compare_as_many_clips_of_both_sets() -> None:
    labels = np.tile([0, 1], 6)
    apart, mixed = labels[:, None].astype(float), np.repeat([0.0, 1.0], 6)[:, None]
    gaps = separability_gaps(
        {"rgb": (apart, labels), "audio": (mixed, labels), "flow": (apart, labels)},
        {"rgb": (mixed[::3], labels[::3]), "audio": (mixed, labels)},
        2,
    )
    # Of four evenly spaced clips of each set: pure against half.
    assert gaps == {"rgb": 0.5, "audio": 0.0}
    swapped = separability_gaps({"rgb": (mixed, labels)}, {"rgb": (apart, labels)}, 2)
    assert swapped == {"rgb": 0.5}


def planted(tiny_batch: MakeBatch, levels: Sequence[int], labels: Sequence[int], **more: Any) -> Batch:
    """Clips of one brightness each."""
    batch = tiny_batch(clips=len(levels), label=labels, **more)
    for clip, level in enumerate(levels):
        batch.streams["rgb"][clip] = level
    if "audio" in batch.streams:
        batch.streams["audio"][:] = 0.25
    return batch


def relearning_of(
    planted_classifier: MakeClassifier, tiny_batch: MakeBatch, tiny_clip: ClipSpec, **more: Any
) -> Relearning:
    """Brightness tells the classes of the training clips apart, but not those of the held-out clips."""
    training = planted(tiny_batch, [0, 200, 0, 200], [0, 1, 0, 1])
    held_out = planted(tiny_batch, [0, 0, 200, 200], [0, 1, 0, 1])
    arguments: dict[str, Any] = {"strength": 3.0, "every": 2, "steps": 6} | more
    streams: list[Any] = [Batches([training]), Batches([held_out])]
    return Relearning(planted_classifier(), tiny_clip, *streams, **arguments)


def test_encoders_move_back_by_the_tanh_of_their_gap(
    planted_classifier: MakeClassifier, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    relearning = relearning_of(planted_classifier, tiny_batch, tiny_clip)
    classifier = relearning.classifier
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter += 2.0
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    shares = relearning.relearn()
    share = math.tanh(3.0 * 0.5)
    assert shares == {"rgb": pytest.approx(share), "audio": 0.0}
    # The gain was 1 and is 3.
    gain = classifier.state_dict()["backbone.encoders.rgb.gain"]
    assert float(gain) == pytest.approx(share * 1.0 + (1 - share) * 3.0)
    for key, value in classifier.state_dict().items():
        if key != "backbone.encoders.rgb.gain":
            assert torch.equal(value, before[key]), key


def test_a_modality_that_no_held_out_clip_has_stays(
    planted_classifier: MakeClassifier, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    training = planted(tiny_batch, [0, 200, 0, 200], [0, 1, 0, 1])
    silent = planted(tiny_batch, [0, 0, 200, 200], [0, 1, 0, 1], absent={("audio", n) for n in range(4)})
    streams: list[Any] = [Batches([training]), Batches([silent])]
    relearning = Relearning(planted_classifier(), tiny_clip, *streams, strength=3.0, every=2, steps=6)
    assert set(relearning.relearn()) == {"rgb"}


def test_features_are_means_over_present_views_of_valid_clips(
    planted_classifier: MakeClassifier, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    batch = planted(tiny_batch, [0, 100, 200], [0, 1, 1], absent={("audio", 0)}, valid=[True, True, False])
    batch.streams["rgb"][1, 1] = 50
    batch.present["rgb"][1, 1] = False
    stream: Any = Batches([batch])
    found = modality_features(planted_classifier(), tiny_clip, stream)
    features, labels = found["rgb"]
    assert labels.tolist() == [0, 1]
    # (level - mean) / deviation with the statistics of `tiny_clip`.
    np.testing.assert_allclose(features[:, 0], [-1 / 50, 99 / 50], rtol=1e-5)
    assert found["audio"][1].tolist() == [1]


def test_it_relearns_at_its_interval_but_not_after_the_last_step(
    planted_classifier: MakeClassifier, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    scored: list[int] = []

    def score(step: int) -> dict[str, float]:
        scored.append(step)
        return {"validation/loss": float(step)}

    relearning = relearning_of(
        planted_classifier, tiny_batch, tiny_clip, every=4, steps=12, beside=score, beside_every=6
    )
    assert relearning.interval == 2
    found = {step: set(relearning(step)) for step in range(2, 13, 2)}
    both = {"relearning/rgb", "relearning/audio"}
    assert scored == [6, 12]
    assert [step for step, names in found.items() if both <= names] == [4, 8]
    assert found[6] == found[12] == {"validation/loss"}
    assert not relearning.stop
