"""Learning rates by depth, against hand-counted layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.encoders.encoders import VideoEncoder
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.optimizer import build_optimizer, set_learning_rate
from modalgate.tasks.finetuning.layer_decay import encoder_groups, layer_numbers


def of(groups: list[dict[str, Any]], parameter: torch.nn.Parameter) -> dict[str, Any]:
    found = [group for group in groups if any(member is parameter for member in group["params"])]
    assert len(found) == 1
    return found[0]


def test_layers_are_counted_from_the_stem_to_pooling(tiny_encoder: Callable[..., EncoderSpec]) -> None:
    backbone = Backbone(("rgb",), _spec(tiny_encoder(pooling="gru")))
    layers = layer_numbers(backbone.encoders["rgb"])
    blocks = [layers[f"network.stages.{stage}.blocks.0.conv_dw.weight"] for stage in range(4)]
    assert layers["network.stem.0.weight"] == 0
    assert blocks == sorted(set(blocks))
    assert blocks[0] > 0
    pooling = {number for name, number in layers.items() if name.startswith("pooling")}
    assert pooling == {max(layers.values())}


def test_torchvision_layers_follow_the_order_of_its_parts() -> None:
    layers = layer_numbers(VideoEncoder(EncoderSpec("torchvision/r3d_18"), "r3d_18", 2))
    stages = [layers[f"network.{part}"] for part in ("stem.0.weight", "layer1.0.conv1.0.weight")]
    assert stages == [0, 1]
    assert layers["network.layer4.1.conv1.0.weight"] == 4


def test_rates_fall_with_depth_and_every_parameter_is_in_one_group(tiny_backbone: Callable[..., Backbone]) -> None:
    backbone = tiny_backbone()
    groups = encoder_groups(backbone, scale=2.0, decay=0.5, begin=0.2, end=0.6)
    assert sum(len(group["params"]) for group in groups) == len(list(backbone.parameters()))
    projection = next(backbone.projections.parameters())
    assert (of(groups, projection)["scale"], of(groups, projection)["begin"]) == (2.0, 0.2)
    layers = layer_numbers(backbone.encoders["rgb"])
    top = max(layers.values()) + 1
    for name, parameter in backbone.encoders["rgb"].named_parameters():
        group = of(groups, parameter)
        assert group["scale"] == pytest.approx(2.0 * 0.5 ** (top - layers[name]))
        assert group["begin"] == pytest.approx(0.2 + 0.4 * (top - layers[name]) / top)
    stem = next(backbone.encoders["rgb"].parameters())
    assert of(groups, stem)["begin"] == pytest.approx(0.6)


def test_without_decay_or_unfreezing_it_is_one_group(tiny_backbone: Callable[..., Backbone]) -> None:
    (group,) = encoder_groups(tiny_backbone(), scale=3.0, begin=0.1)
    assert (group["scale"], group["begin"]) == (3.0, 0.1)


def test_a_group_has_no_rate_until_it_begins() -> None:
    early, late = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    config = TrainConfig(steps=10, learning_rate=0.1, warmup=0.0)
    groups = [{"params": early.parameters()}, {"params": late.parameters(), "scale": 2.0, "begin": 0.5}]
    optimizer = build_optimizer(torch.nn.ModuleList([early, late]), config, groups)
    kept = late.weight.detach().clone()
    for step in range(6):
        rate = set_learning_rate(optimizer, config, step)
        assert {group["lr"] for group in optimizer.param_groups} == {rate, 0.0 if step < 5 else 2 * rate}
        (early(torch.ones(2)) + late(torch.ones(2))).sum().backward()
        optimizer.step()
        assert torch.equal(late.weight, kept) == (step < 5)


def _spec(encoder: EncoderSpec) -> BackboneSpec:
    return BackboneSpec(width=8, encoders={"video": encoder})
