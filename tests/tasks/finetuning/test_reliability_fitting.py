"""Fitting the reliability gate to planted evidence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modalgate.fusion.mechanisms.reliability import ReliabilityGate
from modalgate.tasks.finetuning import reliability_fitting
from modalgate.tasks.finetuning.reliability_fitting import (
    Evidence,
    fit_reliability,
    random_place,
    supervision_errors,
)
from torch import Tensor

CLASSES, NAMES = 4, ("camera", "sound")


def scores(label: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Logits (n, 1, C) of an expert whose evidence for the true class is Gaussian: calibrated by construction."""
    noise = torch.randn(len(label), 1, CLASSES, generator=generator)
    return strength**2 * torch.nn.functional.one_hot(label, CLASSES)[:, None] + strength * noise


def planted(count: int, strengths: tuple[float, float], quality: float, seed: int) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % CLASSES
    logits = torch.stack([scores(label, strength, generator) for strength in strengths], dim=2)
    measures = torch.randn(count, 1, 2, 3, generator=generator) * 0.1
    measures[..., 0] += quality
    there = torch.ones(count, 1, 2, dtype=torch.bool)
    return Evidence(logits, there, measures, label, [str(number // 4) for number in range(count)])


def accuracy(gate: ReliabilityGate, evidence: Evidence) -> float:
    logits = {name: evidence.logits[:, 0, place] for place, name in enumerate(NAMES)}
    present = {name: evidence.present[:, 0, place] for place, name in enumerate(NAMES)}
    fused = gate(logits, present, evidence.quality[:, 0])
    return float((fused.embedding.argmax(dim=-1) == evidence.label).float().mean())


def weights(gate: ReliabilityGate, evidence: Evidence) -> list[float]:
    logits = {name: evidence.logits[:, 0, place] for place, name in enumerate(NAMES)}
    present = {name: evidence.present[:, 0, place] for place, name in enumerate(NAMES)}
    return gate(logits, present, evidence.quality[:, 0]).weights.mean(dim=0).tolist()


def with_camera(clean: Evidence, other: Evidence) -> Evidence:
    logits, quality = clean.logits.clone(), clean.quality.clone()
    logits[:, :, 0], quality[:, :, 0] = other.logits[:, :, 0], other.quality[:, :, 0]
    return Evidence(logits, clean.present, quality, clean.label, clean.groups)


def failing(clean: Evidence, seed: int) -> Evidence:
    """Both streams fail: the experts are sure of a random class, and a measure of quality says so."""
    broken = planted(len(clean.label), (2.0, 2.0), 3.0, seed)
    order = torch.randperm(len(clean.label), generator=torch.Generator().manual_seed(seed))
    return Evidence(2 * broken.logits[order], clean.present, broken.quality, clean.label, clean.groups)


def test_a_failing_stream_loses_its_weight() -> None:
    train, test = planted(400, (2.0, 1.5), 0.0, 1), planted(2000, (2.0, 1.5), 0.0, 2)
    noisy = with_camera(test, failing(test, 4))
    gate = ReliabilityGate(NAMES, CLASSES)
    fitted = fit_reliability(gate, train, [failing(train, 3)])
    assert fitted.steps > 0
    assert fitted.loss < fitted.product_loss
    camera, sound = weights(gate, noisy)
    assert camera < 0.2 < sound
    product = ReliabilityGate(NAMES, CLASSES)
    sound_alone = float((noisy.logits[:, 0, 1].argmax(dim=-1) == noisy.label).float().mean())
    # The product follows the camera, which is sure of a random class.
    assert accuracy(product, noisy) < sound_alone - 0.2
    assert accuracy(gate, noisy) > sound_alone - 0.05
    assert accuracy(gate, test) > accuracy(product, test) - 0.02


def test_without_evidence_it_stays_near_the_product() -> None:
    """Calibrated and independent experts: the product is Bayes' rule, and no weight improves it."""
    train, test = planted(200, (1.5, 1.0), 0.0, 1), planted(4000, (1.5, 1.0), 0.0, 2)
    gate, product = ReliabilityGate(NAMES, CLASSES), ReliabilityGate(NAMES, CLASSES)
    fit_reliability(gate, train)
    assert accuracy(gate, test) > accuracy(product, test) - 0.015
    assert all(0.6 < weight < 1.6 for weight in weights(gate, test))


def test_temperatures_undo_planted_overconfidence() -> None:
    clean = planted(600, (1.5, 1.5), 0.0, 1)
    logits = clean.logits * torch.tensor([3.0, 1.0])[:, None]
    # Of one group, temperatures alone are fitted.
    loud = Evidence(logits, clean.present, clean.quality, clean.label, ["one"] * 600)
    gate = ReliabilityGate(NAMES, CLASSES)
    found = fit_reliability(gate, loud).temperatures
    assert 2.4 < found["camera"] < 3.6
    assert 0.8 < found["sound"] < 1.2


def test_any_subset_and_the_row_without_modalities() -> None:
    train = planted(200, (2.0, 1.5), 0.0, 1)
    train.present[:50, :, 0] = False
    gate = ReliabilityGate(NAMES, CLASSES)
    fit_reliability(gate, train)
    logits = {name: train.logits[:, 0, place] for place, name in enumerate(NAMES)}
    nothing = {name: torch.zeros(200, dtype=torch.bool) for name in NAMES}
    fused = gate(logits, nothing, train.quality[:, 0])
    # All classes are equally frequent.
    torch.testing.assert_close(fused.embedding.softmax(-1), torch.full((200, CLASSES), 1 / CLASSES))
    alone = gate(logits, nothing | {"sound": torch.ones(200, dtype=torch.bool)}, train.quality[:, 0])
    assert torch.equal(alone.embedding.argmax(-1), logits["sound"].argmax(-1))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_gate() -> None:
    train = planted(100, (2.0, 1.5), 0.0, 1)
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        gate = ReliabilityGate(NAMES, CLASSES)
        fit_reliability(gate, train, [failing(train, 3)], seed=7)
        states.append(gate.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_one_group_is_enough_to_fit_temperatures() -> None:
    train = planted(40, (2.0, 1.5), 0.0, 1)
    single = Evidence(train.logits, train.present, train.quality, train.label, ["one"] * 40)
    gate = ReliabilityGate(NAMES, CLASSES)
    fitted = fit_reliability(gate, single)
    assert fitted.steps == 0
    # Four draws, some without a stream, so a loss between that of both streams and that of guessing.
    assert 0 < fitted.loss == fitted.product_loss < np.log(CLASSES)
    assert all(torch.isfinite(value).all() for value in gate.state_dict().values())
    assert torch.equal(gate.scale, torch.zeros_like(gate.scale))


def test_a_corrupted_stream_is_one_that_the_clip_has() -> None:
    present = np.array([[True, False, True]] * 3000 + [[False, True, False]] * 10)
    place = random_place(np.random.default_rng(0), present)
    assert set(place[3000:].tolist()) == {1}
    assert set(place[:3000].tolist()) == {0, 2}
    # Half of 3000, within four standard errors.
    assert abs(int((place[:3000] == 0).sum()) - 1500) < 4 * 27.4


def test_weights_per_class_do_not_see_the_clips_they_are_validated_on() -> None:
    """A member's weights per class have no gradient from the clips of its own validation share."""
    train = planted(40, (2.0, 1.5), 0.0, 1)
    gate = ReliabilityGate(NAMES, CLASSES, by_class=True)
    assert gate.classes is not None
    opinions = gate.opinions(train.logits)
    changes = gate.changes(gate.signs(opinions, train.present, train.quality), train.present)
    fused = gate.join(opinions, changes, train.present.expand(changes.shape), apart=True).embedding
    fused[1].square().sum().backward()
    assert gate.classes.grad is not None
    assert [bool(member.any()) for member in gate.classes.grad] == [False, True, False, False, False]
    fit_reliability(gate, train)


def test_supervision_equals_a_loop() -> None:
    torch.manual_seed(0)
    lifts, offsets = torch.randn(2, 6, 3, 2), torch.randn(2, 2)
    opinions, label = torch.randn(6, 3, 2, CLASSES).log_softmax(dim=-1), torch.arange(6) % CLASSES
    present = torch.rand(6, 3, 2) < 0.6
    present[0] = False
    found = supervision_errors(lifts, offsets, opinions, present, label)
    for member in range(2):
        for clip in range(6):
            errors = []
            for view in range(3):
                for place in range(2):
                    if present[clip, view, place]:
                        target = float(opinions[clip, view, place, label[clip]].exp())
                        guess = 1 / (1 + np.exp(-float(offsets[member, place] + lifts[member, clip, view, place])))
                        errors.append(-target * np.log(guess) - (1 - target) * np.log(1 - guess))
            assert float(found[member, clip]) == pytest.approx(np.mean(errors) if errors else 0.0, abs=1e-5)


def of_unequal_clips(count: int, seed: int) -> Evidence:
    """Experts that are strong in some clips and weak in others. A measure of quality says how strong they are.

    They are calibrated and independent, so their product is Bayes' rule, and the fused loss gives a gate no reason to
    weigh them.
    """
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % CLASSES
    strength = 0.2 + 2.3 * torch.rand(count, 1, 2, 1, generator=generator)
    one_hot = torch.nn.functional.one_hot(label, CLASSES)[:, None, None]
    logits = strength**2 * one_hot + strength * torch.randn(count, 1, 2, CLASSES, generator=generator)
    quality = torch.cat([strength, torch.zeros(count, 1, 2, 2)], dim=-1)
    there = torch.ones(count, 1, 2, dtype=torch.bool)
    return Evidence(logits, there, quality, label, [str(number // 4) for number in range(count)])


def levels_of_reliability(gate: ReliabilityGate, evidence: Evidence) -> Tensor:
    """Mean log weight and log odds of the mean true-class probability (2, 4), by quarters of the camera's quality."""
    logits = {name: evidence.logits[:, 0, place] for place, name in enumerate(NAMES)}
    present = {name: evidence.present[:, 0, place] for place, name in enumerate(NAMES)}
    weights = gate(logits, present, evidence.quality[:, 0]).weights[:, 0].log()
    true = logits["camera"].softmax(dim=-1)[torch.arange(len(evidence.label)), evidence.label]
    quarters = evidence.quality[:, 0, 0, 0].argsort().chunk(4)
    return torch.stack([torch.stack([weights[rows].mean(), true[rows].mean().logit()]) for rows in quarters], dim=1)


@torch.no_grad()
def reliability_gap(gate: ReliabilityGate, evidence: Evidence) -> float:
    """Largest distance of log weight and planted log odds over the quarters, up to one offset."""
    weights, odds = levels_of_reliability(gate, evidence)
    gap = weights - odds
    return float(gap.max() - gap.min())


def test_supervised_weights_recover_the_planted_reliability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability_fitting, "PENALTIES", (0.1,))
    train, test = of_unequal_clips(240, 1), of_unequal_clips(2000, 2)
    torch.manual_seed(0)
    gate = ReliabilityGate(NAMES, CLASSES, members=2, supervision=30.0)
    with torch.enable_grad():
        fitted = fit_reliability(gate, train)
    assert fitted.steps > 0
    plain = ReliabilityGate(NAMES, CLASSES)
    # From a quarter to most of the probability: more than two in log odds. Weights of one know nothing of it.
    assert reliability_gap(plain, test) > 2
    assert reliability_gap(gate, test) < 0.6


def test_supervision_of_weight_zero_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability_fitting, "STEPS", 20)
    train = planted(80, (2.0, 1.5), 0.0, 1)
    found = []
    for supervision in (None, 0.0, 1e-9):
        torch.manual_seed(0)
        gate = ReliabilityGate(NAMES, CLASSES, members=2)
        if supervision is not None:
            gate.supervision = supervision
        found.append((fit_reliability(gate, train, [failing(train, 3)], seed=7), gate.state_dict()))
    (plain, state), (none, same), (tiny, near) = found
    assert plain == none
    assert (tiny.penalty, tiny.steps) == (plain.penalty, plain.steps)
    for name, value in state.items():
        assert torch.equal(value, same[name]), name
        # Adam divides by the size of the gradient.
        torch.testing.assert_close(near[name], value, atol=1e-3, rtol=1e-3)


def test_supervision_with_one_group_and_absent_streams_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability_fitting, "STEPS", 10)
    train = planted(40, (2.0, 1.5), 0.0, 1)
    train.present[:, :, 0] = False
    train.present[0] = False
    gate = ReliabilityGate(NAMES, CLASSES, members=2, supervision=1.0)
    assert fit_reliability(gate, replace(train, groups=["one"] * 40)).steps == 0
    assert np.isfinite(fit_reliability(gate, train).loss)
    assert all(torch.isfinite(value).all() for value in gate.state_dict().values())
