"""Encoder specs: given and inherited fields, arguments and weights."""

from dataclasses import asdict, replace

import pytest
from modalgate.fusion.spec import DEFAULTS, PRESETS, BackboneSpec, EncoderSpec, encoder_of
from modalgate.shards.errors import RequestError

VIDEO = EncoderSpec("timm/a", {"depths": [1]}, "mean", 8, weights="a.safetensors", frozen_norms=True)


def rgb(given: EncoderSpec, video: EncoderSpec = VIDEO, preset: str = "tiny") -> EncoderSpec:
    return encoder_of(BackboneSpec(preset=preset, encoders={"video": video, "rgb": given}), "rgb")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "kind"), [("rgb", "video"), ("audio", "audio"), ("inertial", "signal")])
def test_preset_is_the_default(preset: str, name: str, kind: str) -> None:
    found, given = encoder_of(BackboneSpec(preset=preset), name), PRESETS[preset].encoders[kind]
    expected = {key: getattr(DEFAULTS, key) if value is None else value for key, value in asdict(given).items()}
    assert asdict(found) == expected
    assert encoder_of(BackboneSpec(preset=preset), kind) == found


def test_missing_field_is_inherited_from_kind_then_preset() -> None:
    assert rgb(EncoderSpec()) == VIDEO
    assert rgb(EncoderSpec(pooling="gru")) == replace(VIDEO, pooling="gru")
    assert rgb(EncoderSpec(stack=2, frozen_norms=False)) == replace(VIDEO, stack=2, frozen_norms=False)
    base = PRESETS["base"].encoders["video"]
    found = rgb(EncoderSpec(stack=4), EncoderSpec(arguments={"drop_path_rate": 0.1}), "base")
    assert found == replace(base, arguments={"drop_path_rate": 0.1}, stack=4, frozen_norms=False)
    # Another modality of the kind is not touched.
    both = BackboneSpec(encoders={"video": VIDEO, "rgb": EncoderSpec(stack=2)})
    assert encoder_of(both, "flow") == VIDEO


def test_another_network_inherits_neither_arguments_nor_weights() -> None:
    assert rgb(EncoderSpec("timm/b")) == replace(VIDEO, model="timm/b", arguments={}, weights=None)
    assert rgb(EncoderSpec("timm/a")) == VIDEO
    small = encoder_of(BackboneSpec("small", encoders={"signal": EncoderSpec("conv1d")}), "inertial")
    assert small.arguments == PRESETS["small"].encoders["signal"].arguments
    assert rgb(EncoderSpec("timm/b"), EncoderSpec("timm/a", pretrained=True)).pretrained is None


def test_pretrained_and_weights_exclude_each_other() -> None:
    published = rgb(EncoderSpec(pretrained=True))
    assert (published.pretrained, published.weights) == (True, None)
    random = rgb(EncoderSpec(pretrained=False))
    assert not random.resolved().pretrained
    assert random.weights is None
    local = rgb(EncoderSpec(weights="b.pth"), EncoderSpec("timm/a", pretrained=True))
    assert (local.pretrained, local.weights) == (None, "b.pth")
    with pytest.raises(RequestError, match=r"'timm/a' has both .*'b\.pth'"):
        rgb(EncoderSpec(pretrained=True, weights="b.pth"))


def test_pretrained_among_the_arguments_is_the_same_setting() -> None:
    old = encoder_of(BackboneSpec(encoders={"video": EncoderSpec("timm/a", {"pretrained": True, "x": 1})}), "rgb")
    assert (old.pretrained, old.arguments) == (True, {"x": 1})
    assert old.untrained().resolved() == replace(old, pretrained=False).resolved()
    overlaid = EncoderSpec("timm/a", {"pretrained": True, "pretrained_cfg_overlay": {"file": "x"}, "y": 2})
    assert overlaid.untrained().arguments == {"y": 2}


def test_spec_of_an_older_bundle_inherits_nothing() -> None:
    """Older bundles store every field, also an empty mapping of arguments."""
    stored = {"arguments": {}, "pooling": "gru", "stack": 1, "weights": None, "frozen_norms": False}
    for preset in PRESETS:
        for name, model in (("rgb", "timm/convnext_tiny"), ("inertial", "conv1d"), ("audio", "timm/convnext_atto")):
            old = EncoderSpec(model=model, **stored)
            found = encoder_of(BackboneSpec(preset, encoders={name: old}), name)
            assert asdict(found) == stored | {"model": model, "pretrained": None}


def test_an_unknown_name_gets_the_nearest_modality_or_kind() -> None:
    for given, near in (("vidoe", "video"), ("flwo", "flow"), ("signals", "signal")):
        with pytest.raises(RequestError, match=f"'{given}': did you mean '{near}'"):
            encoder_of(BackboneSpec(encoders={given: EncoderSpec()}), "rgb")
        with pytest.raises(RequestError, match="preset 'smal': did you mean 'small'"):
            encoder_of(BackboneSpec(preset="smal"), "rgb")
