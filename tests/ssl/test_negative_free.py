"""Agreement without negatives against the papers' equations."""

import math
from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.negative_free import BarlowTwins, Byol, CrissCross, LeJepa, PairAgreement, VicReg
from torch import Tensor
from torch.nn.functional import normalize

NAMES = ("rgb", "audio")


def encoded(clips: int = 8, absent: tuple[int, ...] = (), seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(clips, 2, 8, generator=generator, dtype=torch.float64).requires_grad_() for name in NAMES
    }
    present = {name: torch.ones(clips, 2, dtype=torch.bool) for name in NAMES}
    present["audio"][list(absent)] = False
    fused = sum(features.values()) / 2
    assert isinstance(fused, Tensor)
    return Encoded(NAMES, features, present, fused, torch.ones(clips, 2, 2), torch.zeros(()), torch.zeros(clips, 2))


def projected(task: PairAgreement, batch: Encoded, absent: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Rows that have both modalities; each head sees its own modality's rows alone."""
    kept = [clip for clip in range(8) if clip not in absent]
    rgb = task.heads["rgb"](batch.features["rgb"].flatten(0, 1)).view(8, 2, -1)[kept].flatten(0, 1)
    return rgb, task.heads["audio"](batch.features["audio"][kept].flatten(0, 1))


@pytest.mark.parametrize("absent", [(), (1, 5)])
def test_vicreg_equals_its_three_terms(absent: tuple[int, ...], assert_equation: Callable[..., None]) -> None:
    torch.manual_seed(0)
    task, batch = VicReg(NAMES, 8, hidden=6, dimension=5).double(), encoded(absent=absent)
    a, b = projected(task, batch, absent)
    total = 25 * (a - b).square().mean()
    for rows in (a, b):
        total = total + 25 * torch.relu(1 - (rows.var(dim=0) + 1e-4).sqrt()).mean() / 2
        centred = rows - rows.mean(dim=0)
        covariance = centred.T @ centred / (len(rows) - 1)
        total = total + (covariance.square().sum() - covariance.diagonal().square().sum()) / 5
    found = task({"plain": batch}, torch.Generator())["loss"]
    assert_equation(found, total, task, {"plain": batch})


def test_barlow_twins_equals_its_cross_correlation(assert_equation: Callable[..., None]) -> None:
    torch.manual_seed(0)
    task, batch = BarlowTwins(NAMES, 8, hidden=6, dimension=5).double(), encoded()
    a, b = projected(task, batch, ())
    a, b = ((rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt() for rows in (a, b))
    correlation = a.T @ b / len(a)
    off = correlation.square().sum() - correlation.diagonal().square().sum()
    expected = ((1 - correlation.diagonal()).square().sum() + 0.005 * off) / 5
    found = task({"plain": batch}, torch.Generator())["loss"]
    assert_equation(found, expected, task, {"plain": batch})


def test_byol_predicts_the_slow_copys_other_modality(assert_equation: Callable[..., None]) -> None:
    torch.manual_seed(0)
    task, batch, slow = Byol(NAMES, 8, hidden=6).double().eval(), encoded(absent=(3,)), encoded(seed=1)
    kept = [clip for clip in range(8) if clip != 3]
    terms = []
    for query, key in (("rgb", "audio"), ("audio", "rgb")):
        guess = normalize(task.predictors[query](batch.features[query][kept].flatten(0, 1)), dim=-1)
        terms.append(
            2 - 2 * (guess * normalize(slow.features[key][kept].flatten(0, 1), dim=-1).detach()).sum(-1).mean()
        )
    loss = task({"plain": batch, "teacher": slow}, torch.Generator())["loss"]
    # The target has no gradient: that of the slow copy's features is zero on both sides.
    assert_equation(loss, torch.stack(terms).mean(), task, {"plain": batch, "teacher": slow})


def test_crisscross_is_the_mean_of_six_terms(assert_equation: Callable[..., None]) -> None:
    torch.manual_seed(0)
    task, batch = CrissCross(NAMES, 8, 2, hidden=6, dimension=5).double().eval(), encoded()
    v, a = (task.heads[name](batch.features[name].flatten(0, 1)).view(8, 2, -1) for name in NAMES)

    def agree(one: tuple[str, Tensor], other: tuple[str, Tensor]) -> Tensor:
        forth = (
            (normalize(task.predictors[one[0]](one[1]), dim=-1) * normalize(other[1].detach(), dim=-1)).sum(-1).mean()
        )
        back = (
            (normalize(task.predictors[other[0]](other[1]), dim=-1) * normalize(one[1].detach(), dim=-1))
            .sum(-1)
            .mean()
        )
        return 1 - (forth + back) / 2

    pairs = [("rgb", 0, "rgb", 1), ("audio", 0, "audio", 1)]
    pairs += [("rgb", i, "audio", j) for i in range(2) for j in range(2)]
    rows = {"rgb": v, "audio": a}
    terms = [agree((m, rows[m][:, i]), (n, rows[n][:, j])) for m, i, n, j in pairs]
    found = task({"plain": batch}, torch.Generator())["loss"]
    assert_equation(found, torch.stack(terms).mean(), task, {"plain": batch})


def test_lejepa_is_agreement_and_the_test_of_epps_and_pulley() -> None:
    torch.manual_seed(0)
    task = LeJepa(NAMES, 8, sketch=0.3, directions=3, hidden=6, dimension=5).double().eval()
    batch = encoded()
    found = task({"plain": batch}, torch.Generator().manual_seed(7))["loss"]
    rgb, audio = projected(task, batch, ())
    middle = (rgb + audio) / 2
    agreement = ((rgb - middle).square().mean() + (audio - middle).square().mean()) / 2
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(7))))
        directions = torch.randn(5, 3, dtype=torch.float64)
    statistics = []
    for rows in (rgb, audio):
        for number in range(3):
            line = rows @ (directions[:, number] / directions[:, number].norm())
            heights = []
            for step in range(17):
                time = 3 * step / 16
                real, imaginary = (time * line).cos().mean(), (time * line).sin().mean()
                bell = math.exp(-time * time / 2)
                heights.append(((real - bell) ** 2 + imaginary**2) * bell)
            # The trapezoid over [-3, 3] of a function that is even.
            area = 2 * sum((heights[i] + heights[i + 1]) / 2 * 3 / 16 for i in range(16))
            statistics.append(area * len(rows))
    expected = 0.3 * torch.stack(statistics).mean() + 0.7 * agreement
    # The frequencies and weights of the test are held in single precision.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    inputs = list(batch.features.values())
    mine, theirs = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for one, other in zip(mine, theirs, strict=True):
        assert bool(other.any())
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_lejepa_draws_from_the_batchs_generator_and_punishes_collapse() -> None:
    torch.manual_seed(0)
    task = LeJepa(NAMES, 8, hidden=6, dimension=5, sketch=1.0).double().eval()
    batch = encoded(clips=32)
    losses = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        losses.append(float(task({"plain": batch}, torch.Generator().manual_seed(7))["loss"].detach()))
        assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    task.heads = torch.nn.ModuleDict({name: torch.nn.Identity() for name in NAMES})
    healthy = float(task({"plain": batch}, torch.Generator())["loss"].detach())
    batch.features = {name: torch.zeros_like(feature) for name, feature in batch.features.items()}
    assert float(task({"plain": batch}, torch.Generator())["loss"]) > 5 * healthy


@pytest.mark.parametrize("kind", [VicReg, BarlowTwins, LeJepa])
def test_too_few_rows_wait_with_gradient(kind: type[PairAgreement]) -> None:
    task = kind(NAMES, 8, hidden=6, dimension=5).double()
    loss = task({"plain": encoded(absent=tuple(range(7)))}, torch.Generator())["loss"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in task.heads.parameters())
