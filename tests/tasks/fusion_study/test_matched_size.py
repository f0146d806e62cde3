"""The hidden width of the control of size on real backbones."""

import pytest
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.tasks.fusion_study.matched_size import matched_hidden
from torch import nn

ENCODERS = {
    "inertial": EncoderSpec("conv1d", {"widths": [8, 16]}),
    "audio": EncoderSpec("timm/test_convnext"),
}


def backbone(names: tuple[str, ...], fusion: str, **arguments: int) -> Backbone:
    encoders = {name: ENCODERS[name] for name in names}
    return Backbone(names, BackboneSpec(width=32, fusion=fusion, fusion_arguments=arguments, encoders=encoders))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("fusion", ["static", "gated_concat", "gmu"])
@pytest.mark.parametrize("alone", ["inertial", "audio"])
def test_one_modality_gets_the_parameters_of_all(fusion: str, alone: str) -> None:
    fused = backbone(("inertial", "audio"), fusion)
    hidden = matched_hidden(fused, lambda width: backbone((alone,), "concat", hidden=width))
    control = backbone((alone,), "concat", hidden=hidden)
    # One hidden unit has 32 + 1 inputs, 32 outputs and a bias.
    assert abs(count(control) - count(fused)) <= (33 + 32 + 1) / 2
    assert count(control) == pytest.approx(count(fused), rel=0.01)


def test_a_model_that_is_already_larger_gets_one_hidden_unit() -> None:
    assert matched_hidden(nn.Linear(2, 2), lambda width: backbone(("inertial",), "concat", hidden=width)) == 1
