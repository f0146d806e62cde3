"""The slow copy against its equation."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.ssl.teacher import Teacher


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_it_follows_with_a_momentum_that_rises_to_one(
    progress: float, momentum: float, tiny_backbone: Callable[..., Backbone]
) -> None:
    backbone = tiny_backbone()
    teacher = Teacher(backbone, momentum=0.9)
    before = [parameter.clone() for parameter in teacher.backbone.parameters()]
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    teacher.update(backbone, progress)
    for old, new in zip(before, teacher.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - momentum))


def test_it_is_never_trained_and_is_in_the_checkpoint(tiny_backbone: Callable[..., Backbone]) -> None:
    teacher = Teacher(tiny_backbone()).train()
    assert not teacher.backbone.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.state_dict().keys() == {f"backbone.{name}" for name in tiny_backbone().state_dict()}
