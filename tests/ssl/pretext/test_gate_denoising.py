"""Gate denoising against a loop over clips."""

import math
from collections.abc import Callable, Collection

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.gate_denoising import GateDenoising

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
NAMES, CLIPS = ("rgb", "flow", "audio"), 6


def three_views(leaves: Leaves, absent: Absent = ()) -> dict[str, Encoded]:
    """Plain clips, clips under the slow copy, and segment `clip % 2` of each clip with one modality corrupted."""
    plain, slow, corrupted = (
        leaves(CLIPS, 2, NAMES, absent),
        leaves(CLIPS, 2, NAMES, seed=1),
        leaves(CLIPS, 1, NAMES, seed=2),
    )
    taken = torch.arange(CLIPS) % 2
    corrupted.present = {name: plain.present[name][torch.arange(CLIPS), taken][:, None] for name in NAMES}
    severity = torch.zeros(CLIPS, 1, 3, dtype=torch.float64)
    severity[torch.arange(CLIPS - 1), 0, torch.arange(CLIPS - 1) % 3] = 0.7
    # The first clip's picture is dropped: a gate cannot but give it nothing.
    severity[0, 0, 0] = 1.0
    corrupted.present["rgb"][0] = False
    corrupted.facts |= {"segments": taken[:, None], "severity": severity}
    return {"plain": plain, "teacher": slow, "corrupt": corrupted}


@pytest.mark.parametrize("absent", [set(), {("audio", 2), ("flow", 1), *((name, 3) for name in NAMES)}])
def test_loss_and_gradients_equal_the_loop(absent: Absent, leaves: Leaves, assert_equation: Assert) -> None:
    torch.manual_seed(0)
    task = GateDenoising(NAMES, 8, gate=0.7, sharpness=1.5, hidden=6).double()
    views = three_views(leaves, absent)
    plain, slow, corrupted = views.values()
    # A gate that gives the second clip's flow more when it is bad, and does not move for the fourth clip. It reads
    # features, so that its own gradient is compared as well.
    read = torch.stack([corrupted.features[name][..., 0].sigmoid() for name in NAMES], dim=-1)
    given = read.detach().clone()
    given[1, 0, 1] = 50.0
    given[3, 0] = plain.weights[3, 1] * 2
    corrupted.weights = given * read / read.detach()
    outputs = task(views, torch.Generator())
    terms, verdicts, divergences = [], [], []
    for b in range(CLIPS):
        left = [m for m, name in enumerate(NAMES) if bool(corrupted.present[name][b, 0])]
        if not left:
            continue
        if len(left) > 1:
            severity, weights = corrupted.facts["severity"][b, 0], corrupted.weights[b, 0]
            wanted = [
                math.exp(-1.5 * float(severity[m])) / sum(math.exp(-1.5 * float(severity[n])) for n in left)
                for m in left
            ]
            shares = [weights[m] / weights[left].sum() for m in left]
            divergences.append(sum(t * (math.log(t) - g.log()) for t, g in zip(wanted, shares, strict=True)))
        guess, target = task.predictor(corrupted.embedding[b, 0]), slow.embedding[b, b % 2].detach()
        terms.append(2 - 2 * (guess * target).sum() / (guess.square().sum().sqrt() * target.square().sum().sqrt()))
        for m, name in enumerate(NAMES):
            if corrupted.facts["severity"][b, 0, m] > 0 and corrupted.present[name][b, 0]:
                before = float(plain.weights[b, b % 2, m] / plain.weights[b, b % 2, left].sum())
                after = float((corrupted.weights[b, 0, m] / corrupted.weights[b, 0, left].sum()).detach())
                verdicts.append(0.5 if after == pytest.approx(before) else float(after < before))
    expected = torch.stack(terms).mean() + 0.7 * torch.stack(divergences).mean()
    assert_equation(outputs["loss"], expected, task, views)
    assert float(outputs["divergence"].detach()) == pytest.approx(float(torch.stack(divergences).mean().detach()))
    assert float(outputs["accuracy"]) == pytest.approx(sum(verdicts) / len(verdicts))


def test_the_target_has_no_gradient(leaves: Leaves) -> None:
    torch.manual_seed(0)
    task, views = GateDenoising(NAMES, 8, hidden=6).double(), three_views(leaves)
    task(views, torch.Generator())["loss"].backward()
    assert views["teacher"].embedding.grad is None
    assert views["corrupt"].embedding.grad is not None


@pytest.mark.parametrize(("factor", "accuracy"), [(0.5, 1.0), (1.0, 0.5), (2.0, 0.0)])
def test_gate_is_scored_on_normalised_weights(factor: float, accuracy: float, leaves: Leaves) -> None:
    task, views = GateDenoising(NAMES, 8, hidden=6).double(), three_views(leaves)
    plain, corrupted = views["plain"], views["corrupt"]
    taken = torch.arange(CLIPS) % 2
    plain.weights = torch.full_like(plain.weights, 0.25)
    bad = corrupted.facts["severity"] > 0
    corrupted.weights = 3 * plain.weights[torch.arange(CLIPS), taken][:, None] * torch.where(bad, factor, 1.0)
    assert float(task(views, torch.Generator())["accuracy"]) == accuracy


def test_batch_without_modalities_has_zero_loss_with_gradient(leaves: Leaves, assert_waits: Assert) -> None:
    task = GateDenoising(NAMES, 8, hidden=6).double()
    views = three_views(leaves, {(name, b) for name in NAMES for b in range(CLIPS)})
    assert_waits(task(views, torch.Generator()), task)
