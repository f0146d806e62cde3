"""Nearest neighbours against a loop over all pairs, and against lightly's ranking."""

import math

import numpy as np
import pytest
import torch
from lightly.utils.benchmarking import knn_predict
from modalgate.tasks.probes.knn import BLOCK, knn_scores

GENERATOR = np.random.default_rng(0)
BANK = GENERATOR.normal(size=(60, 8)).astype(np.float32) * GENERATOR.uniform(0.1, 9, (60, 1)).astype(np.float32)
LABELS = GENERATOR.integers(0, 4, 60)
QUERIES = GENERATOR.normal(size=(25, 8)).astype(np.float32)


def _naive(query: np.ndarray, k: int, temperature: float) -> list[float]:
    similar = []
    for row, label in zip(BANK, LABELS, strict=True):
        cosine = float(np.dot(query, row) / np.sqrt(np.dot(query, query) * np.dot(row, row)))
        similar.append((cosine, int(label)))
    votes = [0.0] * 4
    for cosine, label in sorted(similar, reverse=True)[:k]:
        votes[label] += math.exp(cosine / temperature)
    return [vote / sum(votes) for vote in votes]


def test_scores_equal_a_loop() -> None:
    for k, temperature in ((1, 0.07), (20, 0.07), (20, 1.0), (60, 0.1)):
        scores = knn_scores(BANK, LABELS, QUERIES, 4, k, temperature)
        assert scores == pytest.approx(np.array([_naive(query, k, temperature) for query in QUERIES]), abs=1e-5)


def test_the_ranking_equals_lightly() -> None:
    unit = [torch.nn.functional.normalize(torch.as_tensor(rows), dim=1) for rows in (QUERIES, BANK)]
    ranked = knn_predict(unit[0], unit[1].T.contiguous(), torch.as_tensor(LABELS), 4, knn_k=20, knn_t=0.07)
    assert (knn_scores(BANK, LABELS, QUERIES, 4).argmax(axis=1) == ranked[:, 0].numpy()).all()


def test_blocks_of_queries_do_not_change_scores() -> None:
    queries = np.resize(QUERIES, (2 * BLOCK + 3, 8))
    scores = knn_scores(BANK, LABELS, queries, 4)
    assert scores == pytest.approx(np.resize(knn_scores(BANK, LABELS, QUERIES, 4), scores.shape), abs=1e-9)
    assert knn_scores(BANK, LABELS, queries[:0], 4).shape == (0, 4)


def test_k_is_limited_to_the_bank() -> None:
    assert (knn_scores(BANK, LABELS, QUERIES, 4, k=500) == knn_scores(BANK, LABELS, QUERIES, 4, k=60)).all()
    whole = knn_scores(BANK, LABELS, QUERIES, 4, k=500, temperature=1e6)
    assert whole == pytest.approx(np.tile(np.bincount(LABELS, minlength=4) / 60, (25, 1)), abs=1e-5)


def test_vector_length_does_not_matter_and_a_tiny_temperature_does_not_overflow() -> None:
    stretched = knn_scores(BANK * 1e4, LABELS, QUERIES * 1e-4, 4)
    assert stretched == pytest.approx(knn_scores(BANK, LABELS, QUERIES, 4), abs=1e-5)
    sharp = knn_scores(BANK, LABELS, QUERIES, 4, temperature=1e-4)
    assert np.isfinite(sharp).all()
    assert (sharp.argmax(axis=1) == knn_scores(BANK, LABELS, QUERIES, 4, k=1).argmax(axis=1)).all()


def test_a_class_without_neighbours_scores_zero() -> None:
    assert (knn_scores(BANK, LABELS, QUERIES, 6)[:, 4:] == 0).all()


def test_invalid_input_raises() -> None:
    with pytest.raises(ValueError, match="no samples"):
        knn_scores(BANK[:0], LABELS[:0], QUERIES, 4)
    with pytest.raises(ValueError, match="60 rows of features, but 59 labels"):
        knn_scores(BANK, LABELS[:59], QUERIES, 4)
    with pytest.raises(ValueError, match="there are 3 classes"):
        knn_scores(BANK, LABELS, QUERIES, 3)
    with pytest.raises(ValueError, match="must be positive"):
        knn_scores(BANK, LABELS, QUERIES, 4, k=0)
    with pytest.raises(ValueError, match="not finite"):
        knn_scores(BANK, LABELS, np.full_like(QUERIES, np.nan), 4)
