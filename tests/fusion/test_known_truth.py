"""Fusion on laws whose best possible accuracy is known.

The laws are those of the generated corpus, on features instead of media: every mechanism is trained on fresh draws
and judged on 100,000 others. No accuracy may pass its bound by more than three standard errors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from modalgate.fusion.mechanisms_by_name import build_fusion, fusions_at
from torch import Tensor, nn

TEST_ROWS = 100_000


@dataclass
class Draw:
    """`features` (N, D) or (N, L, D) and `quality` (N, M, 1) of every modality, and the class (N,)."""

    features: dict[str, Tensor]
    quality: Tensor
    label: Tensor


Law = Callable[[int, torch.Generator], Draw]


class Model(nn.Module):
    """A fusion and a linear head; a decision has one small network per modality instead."""

    def __init__(self, name: str, names: tuple[str, ...], width: int, classes: int, quality: int = 0) -> None:
        super().__init__()
        arguments = {"quality": quality} if quality else {}
        self.decision = name in fusions_at("decision")
        self.fusion = build_fusion(name, names, classes if self.decision else width, arguments)
        self.heads = nn.ModuleDict(
            {key: nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, classes)) for key in names}
        )
        self.head = nn.Linear(width, classes)
        self.quality = quality

    def forward(self, draw: Draw, present: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        features = draw.features
        if self.decision:
            # Time is pooled per modality, as by a separate head.
            features = {key: self.heads[key](value).mean(dim=1) for key, value in features.items()}
        rows = len(draw.label)
        present = present or {key: torch.ones(rows, dtype=torch.bool) for key in features}
        extra = (draw.quality,) if self.quality else ()
        fused = self.fusion(features, present, *extra)
        return fused.embedding if self.decision else self.head(fused.embedding), fused.weights


def random_subsets(names: tuple[str, ...], rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Every subset but the empty one, equally often."""
    bits = torch.randint(1, 2 ** len(names), (rows,), generator=generator)
    return {name: (bits >> number) % 2 == 1 for number, name in enumerate(names)}


def train(model: Model, law: Law, steps: int, rate: float = 0.02, dropout: bool = False) -> Model:
    generator = torch.Generator().manual_seed(11)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    names = model.fusion.modalities
    for _ in range(steps):
        draw = law(512, generator)
        present = random_subsets(names, 512, generator) if dropout else None
        loss = nn.functional.cross_entropy(model(draw, present)[0], draw.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def judge(model: Model, law: Law, present: dict[str, bool] | None = None) -> tuple[float, Tensor, Draw]:
    draw = law(TEST_ROWS, torch.Generator().manual_seed(12))
    masks = {name: torch.full((TEST_ROWS,), there) for name, there in present.items()} if present else None
    logits, weights = model(draw, masks)
    return float((logits.argmax(dim=-1) == draw.label).double().mean()), weights, draw


def margin(bound: float) -> float:
    """Three standard errors of an accuracy of `bound`."""
    return 3 * math.sqrt(bound * (1 - bound) / TEST_ROWS)


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


NAMES = ("rgb", "audio", "depth")


def precision(rows: int, generator: torch.Generator) -> Draw:
    """Three readings of a sign, each with deviation 1/2 or 2; the quality states which."""
    label = torch.randint(2, (rows,), generator=generator)
    sigma = torch.where(torch.rand(rows, 3, generator=generator) < 0.5, 0.5, 2.0)
    readings = (label * 2.0 - 1)[:, None] + sigma * torch.randn(rows, 3, generator=generator)
    return Draw({name: readings[:, m, None] for m, name in enumerate(NAMES)}, sigma[..., None], label)


@pytest.mark.slow
def test_precision_gate_with_quality_reaches_the_adaptive_bound_and_static_weights_the_static_bound() -> None:
    static_bound, adaptive_bound = 0.8906, 0.9687
    static, _, _ = judge(train(Model("static", NAMES, 1, 2), precision, 400), precision)
    assert abs(static - static_bound) < 0.005
    assert static <= static_bound + margin(static_bound)
    gated = train(Model("sigmoid", NAMES, 1, 2, quality=1), precision, 2500, rate=0.05)
    accuracy, weights, draw = judge(gated, precision)
    assert adaptive_bound - 0.01 <= accuracy <= adaptive_bound + margin(adaptive_bound)
    evidence = 1 / draw.quality[..., 0] ** 2
    for number in range(3):
        assert torch.corrcoef(torch.stack([weights[:, number], evidence[:, number]]))[0, 1] >= 0.8
    # The same gates on other samples: nothing of the gain may be left.
    shuffled = weights[torch.randperm(TEST_ROWS, generator=torch.Generator().manual_seed(1))]
    values = torch.stack([draw.features[name] for name in NAMES], dim=-2)
    with torch.no_grad():
        guesses = gated.head((shuffled[..., None] * values).sum(dim=-2)).argmax(dim=-1)
    assert float((guesses == draw.label).double().mean()) <= static + margin(static_bound)


def chorus(rows: int, generator: torch.Generator) -> Draw:
    """Three carriers of one of four classes, each replaced by a random class with probability one half."""
    label = torch.randint(4, (rows,), generator=generator)
    corrupted = torch.rand(rows, 3, generator=generator) < 0.5
    shown = torch.where(corrupted, torch.randint(4, (rows, 3), generator=generator), label[:, None])
    features = {name: nn.functional.one_hot(shown[:, m], 4).float() for m, name in enumerate(NAMES)}
    return Draw(features, corrupted.float()[..., None], label)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_chorus_gate_gains_only_from_quality(name: str) -> None:
    blind_bound, aware_bound = 0.7422, 0.9062
    told, weights, draw = judge(train(Model(name, NAMES, 4, 4, quality=1), chorus, 800), chorus)
    assert 0.90 <= told <= aware_bound + margin(aware_bound)
    some_clean = (draw.quality[..., 0] == 0).any(dim=1)
    bad = draw.quality[..., 0] == 1
    assert weights[some_clean][bad[some_clean]].mean() < 0.2 * weights[some_clean][~bad[some_clean]].mean()
    untold, _, _ = judge(train(Model(name, NAMES, 4, 4), chorus, 800), chorus)
    assert untold <= blind_bound + margin(blind_bound)
    assert untold > 0.70


def solo(rows: int, generator: torch.Generator) -> Draw:
    """Each carrier holds one bit of eight classes alone; with probability 0.3 it shows another class's."""
    label = torch.randint(8, (rows,), generator=generator)
    corrupted = torch.rand(rows, 3, generator=generator) < 0.3
    shown = torch.where(corrupted, torch.randint(8, (rows, 3), generator=generator), label[:, None])
    features = {}
    for m, name in enumerate(NAMES):
        features[name] = nn.functional.one_hot(2 * m + (shown[:, m] >> m) % 2, 6).float()
    return Draw(features, corrupted.float()[..., None], label)


@pytest.mark.slow
def test_solo_no_gate_gains() -> None:
    bound = 0.6141
    static, _, _ = judge(train(Model("static", NAMES, 6, 8), solo, 500), solo)
    assert abs(static - bound) <= margin(bound)
    for name in ("softmax", "sigmoid"):
        gated, _, _ = judge(train(Model(name, NAMES, 6, 8, quality=1), solo, 500), solo)
        assert gated <= bound + margin(bound)
        # Both guesses are made on the same draws: what little they differ is not a gain.
        assert gated <= static + margin(bound)


INSTANTS, EVENT = 8, 8


def duet(rows: int, generator: torch.Generator) -> Draw:
    """A flash and a beep among 8 instants, together or half a turn apart: either alone says nothing."""
    label = torch.randint(2, (rows,), generator=generator)
    flash = torch.randint(INSTANTS, (rows,), generator=generator)
    beep = (flash + label * INSTANTS // 2) % INSTANTS
    features = {}
    for name, instant in (("rgb", flash), ("audio", beep)):
        tokens = torch.zeros(rows, INSTANTS, 16)
        tokens[:, :, :INSTANTS] = torch.eye(INSTANTS)
        tokens[torch.arange(rows), instant, EVENT] = 1.0
        features[name] = tokens
    return Draw(features, torch.zeros(rows, 2, 1), label)


@pytest.mark.parametrize(
    "name",
    [
        "product",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mean", "weighted_mean", "entropy", "energy", "evidential")
        ),
    ],
)
def test_duet_decisions_of_separate_heads_stay_at_chance(name: str) -> None:
    model = Model(name, ("rgb", "audio"), 16, 2)
    generator = torch.Generator().manual_seed(11)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        draw = duet(512, generator)
        loss = sum(
            nn.functional.cross_entropy(model.heads[key](value).mean(dim=1), draw.label)
            for key, value in draw.features.items()
        )
        optimizer.zero_grad()
        loss.backward()  # pyright: ignore
        optimizer.step()
    accuracy, _, _ = judge(model, duet)
    assert abs(accuracy - 0.5) <= margin(0.5)


def test_duet_additive_scores_trained_together_stay_below_three_quarters() -> None:
    """Of the four cells, equal or not of two instants, sums of scores get at most three right."""
    accuracy, _, _ = judge(train(Model("product", ("rgb", "audio"), 16, 2), duet, 300, rate=3e-3), duet)
    assert accuracy <= 0.75 + margin(0.75)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cross", "bottleneck"])
def test_duet_token_fusion_solves_it(name: str) -> None:
    accuracy, _, _ = judge(train(Model(name, ("rgb", "audio"), 16, 2), duet, 600, rate=3e-3), duet)
    assert accuracy > 0.9


@pytest.mark.slow
def test_every_subset_keeps_nine_tenths_of_its_bound_after_modality_dropout() -> None:
    bounds = {1: 0.625, 2: 0.8125, 3: 0.9062}
    model = train(Model("softmax", NAMES, 4, 4, quality=1), chorus, 1200, dropout=True)
    for bits in range(1, 8):
        present = {name: bool(bits >> m & 1) for m, name in enumerate(NAMES)}
        bound = bounds[sum(present.values())]
        accuracy, _, _ = judge(model, chorus, present)
        assert 0.9 * bound <= accuracy <= bound + margin(bound), present
