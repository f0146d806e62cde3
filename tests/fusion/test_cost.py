"""What a backbone costs, against counts by hand."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.blank_segment import blank_segment
from modalgate.fusion.cost import in_words, measure_cost
from modalgate.fusion.spec import PRESETS, BackboneSpec, EncoderSpec
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import Statistics


def test_counts_equal_a_count_by_hand(tiny_clip: ClipSpec) -> None:
    encoder = EncoderSpec("conv1d", {"widths": [4]}, pooling="mean")
    backbone = Backbone(("inertial",), BackboneSpec(width=3, fusion="static", encoders={"signal": encoder}))
    samples = blank_segment(("inertial",), tiny_clip).streams["inertial"].shape[2]
    steps = (samples + 2 * 2 - 5) // 2 + 1
    costs = {cost.part: cost for cost in measure_cost(backbone, tiny_clip)}
    assert costs["inertial"].multiply_adds == steps * 4 * 6 * 5 + 4 * 3
    # Convolution, group norm, projection, layer norm.
    assert costs["inertial"].parameters == (4 * 6 * 5 + 4) + 8 + (4 * 3 + 3) + 6
    assert costs["all"].parameters == sum(parameter.numel() for parameter in backbone.parameters())


@pytest.mark.parametrize("fusion", ["softmax", "cross"])
def test_parts_sum_to_the_total(tiny_backbone: Callable[..., Backbone], fusion: str) -> None:
    clip = ClipSpec(1.0, 4, 32, 32, 8.0, 8000, 8.0, {})
    backbone = tiny_backbone(("audio",), fusion=fusion)
    *parts, everything = measure_cost(backbone, clip)
    assert everything.parameters == sum(parameter.numel() for parameter in backbone.parameters())
    assert everything.multiply_adds == sum(part.multiply_adds for part in parts) > 0
    assert backbone.training


@pytest.mark.parametrize("pooling", ["mean", "gru", "attention"])
def test_every_pooling_is_counted(tiny_encoder: Callable[..., EncoderSpec], pooling: str) -> None:
    clip = ClipSpec(1.0, 4, 32, 32, 8.0, 8000, 8.0, {"rgb": Statistics((0.0,) * 3, (1.0,) * 3)})
    spec = BackboneSpec(width=8, fusion="static", encoders={"video": tiny_encoder(pooling=pooling)})
    plain = BackboneSpec(width=8, fusion="static", encoders={"video": tiny_encoder(pooling="mean")})
    extra = measure_cost(Backbone(("rgb",), spec), clip)[-1].multiply_adds
    extra -= measure_cost(Backbone(("rgb",), plain), clip)[-1].multiply_adds
    frames, width = 4, 8
    expected = {
        "mean": 0,
        # Three gates of two products for every frame.
        "gru": frames * 3 * 2 * width * width,
        # Time; query, keys and values; scores and their sum; the way out.
        "attention": frames * width + (1 + 2 * frames) * width * width + 2 * frames * width + width * width,
    }
    assert extra == expected[pooling]


def test_presets_grow() -> None:
    sizes = []
    for name in PRESETS:
        with torch.device("meta"):
            backbone = Backbone(("audio", "inertial"), BackboneSpec(preset=name))
        sizes.append(sum(parameter.numel() for parameter in backbone.parameters()))
        assert backbone.width == PRESETS[name].width
    assert sizes == sorted(sizes)
    assert sizes[-1] > 10 * sizes[0]


def test_sizes_in_words() -> None:
    for number, words in ((999, "999"), (1000, "1 k"), (3_449_000, "3.45 M"), (10**10, "10 G")):
        assert in_words(number) == words
