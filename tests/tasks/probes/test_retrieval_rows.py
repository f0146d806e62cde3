"""Retrieval over a probe's splits, on features with a planted link between modalities."""

import numpy as np
import pytest
from modalgate.tasks.features.extract import Features
from modalgate.tasks.probes.retrieval import class_retrieval
from modalgate.tasks.probes.retrieval_rows import class_rows, cross_modal_rows
from modalgate.tasks.splits.splits import Split

CLIPS, WIDTH = 300, 8


def linked(noise: float) -> tuple[Features, np.ndarray]:
    """`audio` is a rotation of `rgb` plus noise. `flow` is the class. Every third clip has no audio."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, CLIPS)
    rgb = generator.normal(size=(CLIPS, WIDTH)) + 5
    rotation = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0]
    audio = rgb @ rotation + noise * generator.normal(size=(CLIPS, WIDTH)) - 3
    flow = generator.normal(size=(CLIPS, WIDTH)) + 4 * (2 * labels[:, None] - 1)
    heard = np.arange(CLIPS) % 3 > 0
    values = {"fused": rgb, "rgb": rgb, "audio": audio * heard[:, None], "flow": flow}
    everywhere = np.ones(CLIPS, bool)
    features = Features.joined(
        ("rgb", "audio", "flow"),
        {name: array.astype(np.float32) for name, array in values.items()},
        {"rgb": everywhere, "audio": heard, "flow": everywhere},
        np.full((CLIPS, 3), 1 / 3, np.float32),
        [str(i) for i in range(CLIPS)],
    )
    return features, labels


def splits() -> list[Split]:
    rows = np.arange(CLIPS)
    return [Split("a", rows[90:], rows[:0], rows[:90]), Split("b", rows[:240], rows[:0], rows[240:])]


def test_linked_modalities_find_the_clip_and_others_stay_at_chance() -> None:
    features, _ = linked(noise=0.05)
    rows = {(row.query, row.gallery_feature): row for row in cross_modal_rows(features, splits())}
    assert len(rows) == 6
    for pair in (("rgb", "audio"), ("audio", "rgb")):
        assert rows[pair].recall[1] > 0.95
        assert rows[pair].median_rank == 1
        # Clips without audio do not count: 60 and 40 test clips of the two splits have audio.
        assert rows[pair].queries == 100
        assert rows[pair].gallery == pytest.approx((60 * 60 + 40 * 40) / 100)
        assert rows[pair].chance == pytest.approx(2 / 100)
    for pair in (("rgb", "flow"), ("flow", "rgb")):
        # 150 queries, each correct by chance once in 90 or once in 60.
        assert rows[pair].recall[1] < 0.06
        assert rows[pair].median_rank > 25


def test_the_map_is_not_fitted_on_test_clips() -> None:
    features, _ = linked(noise=0.05)
    generator = np.random.default_rng(1)
    test = splits()[0].test
    # Only the test clips lack the link. A map fitted on them would still find some.
    features.values["audio"][test] = generator.normal(size=(len(test), WIDTH)).astype(np.float32)
    rows = {(row.query, row.gallery_feature): row for row in cross_modal_rows(features, splits()[:1])}
    assert rows["rgb", "audio"].recall[1] < 0.1


def test_the_class_is_searched_among_the_training_clips() -> None:
    features, labels = linked(noise=0.05)
    rows = {row.query: row for row in class_rows(features, labels, splits())}
    assert rows["flow"].recall[1] > 0.99
    assert abs(rows["rgb"].recall[1] - rows["rgb"].chance) < 0.15
    found = [
        class_retrieval(
            features.values["rgb"][split.train],
            labels[split.train],
            features.values["rgb"][split.test],
            labels[split.test],
        )
        for split in splits()
    ]
    assert rows["rgb"].recall[5] == pytest.approx(np.average([f.recall[5] for f in found], weights=[90, 60]))
    assert rows["rgb"].chance == pytest.approx(0.5, abs=0.05)


def test_modalities_without_common_clips_give_an_empty_row() -> None:
    features, labels = linked(noise=0.05)
    features.present["audio"][:] = False
    rows = {(row.query, row.gallery_feature): row for row in cross_modal_rows(features, splits())}
    assert rows["rgb", "audio"].queries == 0
    assert np.isnan(rows["rgb", "audio"].recall[1])
    assert {row.query: row.queries for row in class_rows(features, labels, splits())}["audio"] == 0
