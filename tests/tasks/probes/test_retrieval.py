"""Retrieval against naive sorting, and on planted neighbours."""

import numpy as np
import pytest
from modalgate.tasks.probes.retrieval import class_retrieval, cross_modal_retrieval


def naive_first_hit(gallery: np.ndarray, query: np.ndarray, hit: np.ndarray) -> int:
    similarity = [float(row @ query / np.linalg.norm(row) / np.linalg.norm(query)) for row in gallery]
    order = sorted(range(len(gallery)), key=lambda row: -similarity[row])
    return next(place for place, row in enumerate(order, start=1) if hit[row])


def test_class_retrieval_equals_sorting() -> None:
    generator = np.random.default_rng(0)
    gallery, queries = generator.normal(size=(60, 5)), generator.normal(size=(17, 5))
    gallery_labels, labels = generator.integers(0, 6, 60), generator.integers(0, 6, 17)
    first = [naive_first_hit(gallery, q, gallery_labels == label) for q, label in zip(queries, labels, strict=True)]
    found = class_retrieval(gallery, gallery_labels, queries, labels)
    assert found.recall == {k: np.mean(np.array(first) <= k) for k in (1, 5, 10, 20)}
    assert found.median_rank == np.median(first)
    assert found.gallery == 60


def test_the_same_clip_is_found_with_signal_and_by_chance_without() -> None:
    generator = np.random.default_rng(1)
    clips = generator.normal(size=(600, 32))
    near = cross_modal_retrieval(clips + 0.3 * generator.normal(size=clips.shape), clips)
    assert near.recall[1] > 0.99
    assert near.median_rank == 1
    none = cross_modal_retrieval(generator.normal(size=clips.shape), clips)
    assert abs(none.recall[20] - 20 / 600) < 3 * np.sqrt(20 / 600 / 600)


def test_a_collapsed_encoder_retrieves_nothing() -> None:
    found = cross_modal_retrieval(np.ones((50, 4)), np.ones((50, 4)))
    assert found.recall == {1: 0.0, 5: 0.0, 10: 0.0, 20: 0.0}
    assert found.median_rank == 50


def test_a_class_missing_from_the_gallery_is_never_a_hit() -> None:
    found = class_retrieval(np.eye(3), np.array([0, 0, 1]), np.eye(3), np.array([2, 2, 2]), ranks=(1, 3))
    assert found.recall == {1: 0.0, 3: 0.0}
    assert np.isnan(found.median_rank)


def test_wrong_sizes_raise() -> None:
    with pytest.raises(ValueError, match="same clips in both"):
        cross_modal_retrieval(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="differ in number"):
        class_retrieval(np.ones((3, 2)), np.zeros(2), np.ones((1, 2)), np.zeros(1))
    with pytest.raises(ValueError, match="are empty"):
        cross_modal_retrieval(np.ones((0, 2)), np.ones((0, 2)))
