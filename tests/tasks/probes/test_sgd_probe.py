"""The linear probe by SGD: a planted signal, the choice of the rate, and one step against autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from modalgate.tasks.probes.sgd_probe import RATES, fit_sgd_probe
from numpy.typing import NDArray


def planted(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % 3)
    features = 3 * np.eye(3, 8)[labels] + generator.normal(size=(count, 8)) + 100
    return features.astype(np.float32), labels


def test_a_planted_signal_is_found_at_its_known_accuracy():
    # Three unit Gaussians 3 * sqrt(2) apart: the Bayes error is about 1 - (1 - .017)^2.
    probe = fit_sgd_probe(*planted(600, 0), 3, planted(300, 1))
    features, labels = planted(3000, 2)
    assert (probe.scores(features).argmax(axis=1) == labels).mean() == pytest.approx(0.966, abs=0.015)


def test_random_labels_stay_at_chance():
    features, _ = planted(600, 0)
    labels = np.random.default_rng(5).integers(3, size=600)
    probe = fit_sgd_probe(features[:300], labels[:300], 3, (features[300:450], labels[300:450]))
    assert (probe.scores(features[450:]).argmax(axis=1) == labels[450:]).mean() < 0.45


def test_the_first_step_equals_autograd():
    features, labels = planted(32, 3)
    probe = fit_sgd_probe(features, labels, 3, (features, labels), epochs=1, batch_size=32, seed=4)
    generator = torch.Generator().manual_seed(4)
    start = 0.01 * torch.randn(8, 3, generator=generator)
    weight = start.clone().requires_grad_()
    x = torch.as_tensor(features)
    logits = (x - x.mean(dim=0)) / (x.var(dim=0, correction=0) + 1e-5).sqrt() @ weight
    F.cross_entropy(logits, torch.as_tensor(labels)).backward()
    assert weight.grad is not None
    torch.testing.assert_close(probe.weight, start - probe.rate * 32 / 256 * weight.grad, rtol=1e-4, atol=1e-5)


def test_validation_chooses_the_rate_and_the_fit_is_deterministic():
    train, validation = planted(300, 0), planted(90, 1)
    first, second = (fit_sgd_probe(*train, 3, validation) for _ in range(2))
    assert first.rate in RATES
    assert torch.equal(first.weight, second.weight)


def test_no_validation_clips_raise():
    features, labels = planted(30, 0)
    with pytest.raises(ValueError, match="validation clips"):
        fit_sgd_probe(features, labels, 3, (features[:0], labels[:0]))
