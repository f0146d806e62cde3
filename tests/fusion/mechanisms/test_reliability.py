"""The reliability gate against a loop, its start, and its options."""

import math
from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.mechanisms.reliability import STRONGEST, ReliabilityGate
from modalgate.fusion.mechanisms_by_name import build_fusion
from modalgate.shards.errors import RequestError
from torch import Tensor

NAMES = ("rgb", "flow", "audio")


def naive_lifts(gate: ReliabilityGate, row: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logarithm of each weight, one modality and one network after another. No quality is known."""
    chances = {}
    for name, logits in row.items():
        tempered = logits / gate.temperature[gate.modalities.index(name)]
        chances[name] = tempered.exp() / tempered.exp().sum()
    mean = sum(chances.values()) / len(chances)  # pyright: ignore[reportOperatorIssue]
    inputs, there = [], []
    for place, name in enumerate(gate.modalities):
        there.append(torch.tensor(float(name in row), dtype=torch.float64))
        if name not in row:
            inputs += [torch.zeros((), dtype=torch.float64)] * (4 + gate.quality)
            continue
        chance = chances[name]
        ordered = chance.sort(descending=True).values
        signs = [
            -(chance * chance.log()).sum() / math.log(len(chance)),
            ordered[0],
            ordered[1],
            (chance * mean).sum(),
        ]
        signs += [torch.zeros((), dtype=torch.float64)] * gate.quality
        centred = [(sign - gate.centre[place, n]) / gate.deviation[place, n] for n, sign in enumerate(signs)]
        inputs += [value.clamp(-4, 4) for value in centred]
    values = torch.stack([*inputs, *there])
    lifts = {}
    for place, name in enumerate(gate.modalities):
        each = []
        for member in range(gate.members):
            hidden = (values @ gate.first[member] + gate.first_bias[member]).tanh()
            each.append(gate.scale[member, place] + hidden @ gate.last[member, :, place])
        lifts[name] = STRONGEST * (sum(each) / len(each) / STRONGEST).tanh()  # pyright: ignore[reportOperatorIssue]
    return {name: lifts[name] for name in row}


def naive_product(gate: ReliabilityGate, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    weights = {name: lift.exp() for name, lift in naive_lifts(gate, row).items()}
    score = torch.ones(len(next(iter(row.values()))), dtype=torch.float64)
    for name, logits in row.items():
        place = gate.modalities.index(name)
        factor = 1.0 if gate.classes is None else gate.classes.mean(dim=0)[place].exp()
        chance = (logits / gate.temperature[place]).exp()
        score = score * (chance / chance.sum()) ** (weights[name] * factor)
    return (score / score.sum()).log(), weights


def naive_mixture(gate: ReliabilityGate, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    raised = {name: lift.exp() for name, lift in naive_lifts(gate, row).items()}
    total = sum(raised.values())
    weights = {name: value / total for name, value in raised.items()}
    chances = {
        name: (logits / gate.temperature[gate.modalities.index(name)]).softmax(dim=-1) for name, logits in row.items()
    }
    return sum(weights[name] * chances[name] for name in row).log(), weights  # pyright: ignore


def test_it_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("reliability", naive_product)
    equals_the_loop("reliability", naive_product, by_class=True, quality=0, members=2)


def test_the_mixture_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("reliability", naive_mixture, mixture=True)


@pytest.mark.parametrize("options", [{}, {"by_class": True}, {"mixture": True}])
def test_it_starts_from_the_product_or_the_mean(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    logits = {name: torch.randn(20, 5) for name in NAMES}
    present = {name: torch.rand(20) < 0.7 for name in NAMES}
    present["rgb"][:] = True
    quality = torch.randn(20, 3, 3)
    gate = ReliabilityGate(NAMES, 5, **options)(logits, present, quality)
    plain = build_fusion("mean" if "mixture" in options else "product", NAMES, 5, {})(logits, present)
    torch.testing.assert_close(gate.embedding, plain.embedding)
    torch.testing.assert_close(gate.weights, plain.weights)


def test_a_temperature_flattens_one_modality() -> None:
    logits = {"rgb": torch.tensor([[2.0, 0.0]]), "flow": torch.tensor([[0.0, 1.0]])}
    present = {name: torch.ones(1, dtype=torch.bool) for name in logits}
    gate = ReliabilityGate(("rgb", "flow"), 2)
    gate.set_temperatures({"rgb": 4.0, "flow": 1.0})
    # 2 / 4 for the first class against 1 for the second.
    expected = torch.tensor([[0.5, 1.0]]).log_softmax(dim=-1)
    torch.testing.assert_close(gate(logits, present).embedding, expected)
    with pytest.raises(ValueError, match="positive temperature"):
        gate.set_temperatures({"rgb": 1.0})


def test_quality_far_from_training_is_clamped() -> None:
    """A corruption stronger than those of the training counts as the strongest of them."""
    torch.manual_seed(0)
    gate = ReliabilityGate(NAMES, 5)
    torch.nn.init.normal_(gate.last)
    logits = {name: torch.randn(1, 5) for name in NAMES}
    present = {name: torch.ones(1, dtype=torch.bool) for name in NAMES}
    near, far = (gate(logits, present, torch.full((1, 3, 3), level)) for level in (4.0, 400.0))
    torch.testing.assert_close(near.weights, far.weights)
    assert not torch.allclose(near.weights, gate(logits, present, torch.zeros(1, 3, 3)).weights)


def test_a_mixture_has_no_weights_by_class() -> None:
    with pytest.raises(RequestError, match="by_class or mixture"):
        build_fusion("reliability", NAMES, 5, {"mixture": True, "by_class": True})


def test_supervision_is_not_negative() -> None:
    with pytest.raises(RequestError, match="0 or more"):
        build_fusion("reliability", NAMES, 5, {"supervision": -1.0})
