"""Gate denoising against a loop over clips."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.gate_denoising import GateDenoising

NAMES = ("rgb", "audio")

SEVERITY = torch.tensor([[[0.0, 0.4]], [[0.7, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]], [[0.3, 0.0]]])


@pytest.mark.parametrize("absent", [[], [("audio", 2)], [("audio", 2), ("rgb", 3), ("audio", 3)]])
def test_the_prediction_is_of_the_clean_teacher_and_the_gate_is_scored_by_shares(
    absent: list[tuple[str, int]], leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = GateDenoising(("rgb", "audio"), 8, hidden=6).double()
    chosen = torch.tensor([[0], [2], [1], [1], [0]])
    plain, teacher = leaves(names=NAMES), leaves(names=NAMES, seed=2)
    corrupt = leaves(names=NAMES, segments=1, absent=absent, seed=1, severity=SEVERITY)
    corrupt.facts["segments"] = chosen
    outputs = task({"plain": plain, "teacher": teacher, "corrupt": corrupt}, torch.Generator())
    terms, wins = [], []
    for clip in range(5):
        segment = int(chosen[clip])
        if all((name, clip) in absent for name in ("rgb", "audio")):
            continue
        guess, target = task.predictor(corrupt.embedding[clip, 0]), teacher.embedding[clip, segment].detach()
        terms.append(2 - 2 * (guess @ target) / (guess.norm() * target.norm()))
        for number, name in enumerate(("rgb", "audio")):
            if SEVERITY[clip, 0, number] > 0 and (name, clip) not in absent:
                after = corrupt.weights[clip, 0, number] / corrupt.weights[clip, 0].sum()
                before = plain.weights[clip, segment, number] / plain.weights[clip, segment].sum()
                wins.append(1.0 if after < before else 0.5 if after == before else 0.0)
    views = {"plain": plain, "teacher": teacher, "corrupt": corrupt}
    assert_equation(outputs["loss"], torch.stack(terms).mean(), task, views)
    assert float(outputs["accuracy"]) == pytest.approx(sum(wins) / len(wins))


def test_nothing_corrupted_has_no_accuracy_and_nothing_present_no_loss(leaves: Callable[..., Encoded]) -> None:
    task = GateDenoising(("rgb", "audio"), 8, hidden=6).double()
    absent = [(name, clip) for name in ("rgb", "audio") for clip in range(5)]
    corrupt = leaves(names=NAMES, segments=1, absent=absent, severity=torch.zeros(5, 1, 2))
    corrupt.facts["segments"] = torch.zeros(5, 1, dtype=torch.long)
    outputs = task(
        {"plain": leaves(names=NAMES), "teacher": leaves(names=NAMES), "corrupt": corrupt}, torch.Generator()
    )
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    assert "accuracy" not in outputs
    assert all(p.grad is not None and not bool(p.grad.any()) for p in task.parameters())
