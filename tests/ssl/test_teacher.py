"""The slow copy against its equation."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.ssl.teacher import Teacher


@pytest.mark.parametrize(
    ("progress", "step", "momentum"),
    [(0.0, 1000, 0.9), (0.5, 1000, 0.95), (1.0, 10**6, 1.0), (0.5, 1, 2 / 11), (0.5, 80, 0.9)],
)
def test_momentum_rises_to_one(
    progress: float, step: int, momentum: float, tiny_backbone: Callable[..., Backbone]
) -> None:
    backbone = tiny_backbone()
    teacher = Teacher(backbone, momentum=0.9)
    before = [parameter.clone() for parameter in teacher.backbone.parameters()]
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    teacher.update(backbone, progress, step)
    for old, new in zip(before, teacher.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - momentum), rtol=1e-5, atol=2e-5)


def test_short_run_forgets_random_weights(tiny_backbone: Callable[..., Backbone]) -> None:
    backbone = tiny_backbone()
    teacher = Teacher(backbone)
    start = [parameter.clone() for parameter in teacher.backbone.parameters()]
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    for step in range(1, 100):
        teacher.update(backbone, step / 100, step)
    left = [1 - (now - old).mean() for old, now in zip(start, teacher.backbone.parameters(), strict=True)]
    assert max(float(share.detach()) for share in left) < 0.01


def test_teacher_is_not_trained_and_is_in_the_checkpoint(tiny_backbone: Callable[..., Backbone]) -> None:
    teacher = Teacher(tiny_backbone()).train()
    assert not teacher.backbone.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.state_dict().keys() == {f"backbone.{name}" for name in tiny_backbone().state_dict()}
