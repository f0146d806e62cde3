"""A blank segment: its shapes, and windows too small for an encoder."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.blank_segment import blank_segment, check_windows
from modalgate.fusion.cost import measure_cost
from modalgate.fusion.spec import EncoderSpec
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError

EVERY_KIND = ("rgb", "audio", "inertial")


def test_blank_segment_has_the_shapes_of_the_stream(tiny_clip: ClipSpec) -> None:
    batch = blank_segment(EVERY_KIND, tiny_clip)
    assert {name: tuple(stream.shape) for name, stream in batch.streams.items()} == {
        "rgb": (1, 1, tiny_clip.frames, 3, tiny_clip.size, tiny_clip.size),
        "audio": (1, 1, round(tiny_clip.seconds * tiny_clip.sample_rate)),
        "inertial": (1, 1, round(tiny_clip.seconds * 50), 6),
    }
    assert all(bool(mask.all()) for mask in batch.present.values())


def test_suitable_windows_pass_and_keep_the_training_mode(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    backbone = tiny_backbone(EVERY_KIND).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    check_windows(backbone, tiny_clip)
    assert backbone.training
    assert all(bool((value == before[name]).all()) for name, value in backbone.state_dict().items())


def test_sound_too_short_for_its_network_is_named(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    deep = EncoderSpec("timm/convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]})
    backbone = tiny_backbone(("rgb", "audio"), encoders={"video": EncoderSpec("timm/test_resnet"), "audio": deep})
    wrong = r"encoder 'timm/convnext_atto' of audio cannot encode windows of 0\.05 s of sound: raise data\.seconds"
    with pytest.raises(RequestError, match=wrong) as caught:
        check_windows(backbone, replace(tiny_clip, seconds=0.05))
    assert "\n" not in str(caught.value)


def test_pictures_too_small_for_their_network_are_named(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    deep = EncoderSpec("timm/convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]})
    backbone = tiny_backbone(("rgb",), encoders={"video": deep})
    with pytest.raises(RequestError, match=r"of rgb cannot encode windows of 2 frames of 8 px: raise data"):
        check_windows(backbone, replace(tiny_clip, size=8))


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("Input height (32) doesn't match model (224)"),
        ValueError("window too short"),
        IndexError(),
        ZeroDivisionError("division by zero"),
        RuntimeError("kernel size\nlarger than input"),
    ],
)
def test_any_check_of_a_network_is_named_and_modes_are_kept(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    backbone = tiny_backbone(("rgb",)).train()
    part = next(part for part in backbone.modules() if isinstance(part, torch.nn.Conv2d)).eval()
    modes = [module.training for module in backbone.modules()]

    def encode(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(backbone, "encode", encode)
    with pytest.raises(RequestError, match=r"of rgb cannot encode windows of .*: raise data\.frames or data\.size"):
        check_windows(backbone, tiny_clip)
    assert [module.training for module in backbone.modules()] == modes
    assert not part.training
    monkeypatch.undo()
    check_windows(backbone, tiny_clip)
    measure_cost(backbone, tiny_clip)
    assert [module.training for module in backbone.modules()] == modes
