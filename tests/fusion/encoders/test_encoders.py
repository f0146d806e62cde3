"""Encoders per modality: shapes, independence of rows, stems for other channels."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.encoders.encoders import ENCODERS, Family, SignalEncoder, VideoEncoder, build_encoder
from modalgate.fusion.spec import EncoderSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.modality import Modality, modality
from torch import Tensor, nn

Build = Callable[..., EncoderSpec]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def encode(encoder: nn.Module, stream: Tensor) -> Tensor:
    return encoder.eval()(stream)


@pytest.mark.parametrize("name", ["rgb", "flow", "depth"])
def test_frame_encoder_encodes_every_frame_independently(name: str, tiny_encoder: Build) -> None:
    torch.manual_seed(0)
    entry = modality(name)
    encoder = build_encoder(entry, tiny_encoder(pooling="mean"))
    video = noise(3, 4, entry.channels, 32, 32)
    features = encode(encoder, video)
    assert features.shape == (3, encoder.features) == (3, 8)
    frames = [encode(encoder.network, video[:, frame]) for frame in range(4)]  # pyright: ignore
    torch.testing.assert_close(features, torch.stack(frames).mean(dim=0))


def test_stack_joins_successive_frames_as_channels(tiny_encoder: Build) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(modality("rgb"), tiny_encoder(stack=2))
    video = noise(2, 4, 3, 32, 32)
    pairs = [torch.cat([video[:, frame], video[:, frame + 1]], dim=1) for frame in (0, 2)]
    expected = torch.stack([encode(encoder.network, pair) for pair in pairs]).mean(dim=0)  # pyright: ignore
    torch.testing.assert_close(encode(encoder, video), expected)
    with pytest.raises(RequestError, match=r"data\.frames of 3 cannot be divided into stacks of 2"):
        encode(encoder, video[:, :3])


def test_network_with_widened_features_keeps_its_pooling() -> None:
    encoder = build_encoder(modality("rgb"), EncoderSpec("timm/mobilenetv3_small_050", pooling="mean"))
    assert encode(encoder, noise(2, 1, 3, 32, 32)).shape == (2, encoder.features)


@pytest.mark.parametrize("network", ["r3d_18", "s3d"])
@pytest.mark.parametrize("name", ["rgb", "flow", "depth"])
def test_video_encoder_accepts_small_clips_of_any_channels(network: str, name: str) -> None:
    torch.manual_seed(0)
    entry = modality(name)
    encoder = build_encoder(entry, EncoderSpec(f"torchvision/{network}"))
    video = noise(2, 8, entry.channels, 32, 32)
    features = encode(encoder, video)
    assert features.shape == (2, encoder.features)
    torch.testing.assert_close(encode(encoder, video[1:]), features[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["flow", "depth"])
def test_adapted_stem_has_the_same_response_to_equal_channels(name: str) -> None:
    entry = modality(name)
    torch.manual_seed(0)
    original = VideoEncoder(EncoderSpec("torchvision/r3d_18"), "r3d_18", 3)
    torch.manual_seed(0)
    adapted = VideoEncoder(EncoderSpec("torchvision/r3d_18"), "r3d_18", entry.channels)
    gray = noise(1, 4, 1, 32, 32)
    there, here = gray.expand(-1, -1, 3, -1, -1), gray.expand(-1, -1, entry.channels, -1, -1)
    torch.testing.assert_close(encode(adapted, here), encode(original, there), rtol=1e-4, atol=1e-5)


def test_spectrogram_encoder(tiny_encoder: Build) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(modality("audio"), tiny_encoder())
    sound = noise(3, 1, 64, 41)
    features = encode(encoder, sound)
    assert features.shape == (3, encoder.features)
    torch.testing.assert_close(encode(encoder, sound[:1]), features[:1])


@pytest.mark.parametrize("pooling", ["mean", "gru", "attention"])
def test_only_mean_pooling_ignores_when_a_sound_occurs(tiny_encoder: Build, pooling: str) -> None:
    torch.manual_seed(0)
    # Without padding the same click moves through the columns unchanged but for its place.
    encoder = build_encoder(modality("audio"), tiny_encoder(pooling=pooling)).eval()
    # Large weights: an untrained attention hardly distinguishes places.
    for name, parameter in encoder.named_parameters():
        if name.startswith("pooling") and pooling == "attention":
            torch.nn.init.normal_(parameter)
    early, late = torch.zeros(1, 1, 64, 320), torch.zeros(1, 1, 64, 320)
    early[..., 96:104], late[..., 192:200] = 3.0, 3.0
    moved = (encode(encoder, early) - encode(encoder, late)).norm() / encode(encoder, early).norm()
    assert moved < 1e-5 if pooling == "mean" else moved > 0.05


def test_transformers_keep_their_pooling() -> None:
    encoder = build_encoder(modality("audio"), EncoderSpec("timm/test_vit", {"img_size": [64, 96]}, pooling="gru"))
    assert not any("pooling" in name for name, _ in encoder.named_parameters())
    assert encode(encoder, noise(2, 1, 64, 96)).shape == (2, encoder.features)


def test_signal_encoder() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(modality("inertial"), EncoderSpec("conv1d", {"widths": [4, 12]}, pooling="mean"))
    assert isinstance(encoder, SignalEncoder)
    signal = noise(3, 40, 6)
    features = encode(encoder, signal)
    assert features.shape == (3, 12)
    torch.testing.assert_close(encode(encoder, signal[2:]), features[2:])
    assert encode(encoder.network, signal.transpose(1, 2)).shape == (3, 12, 10), "each stage halves the rate"


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        (
            "rgb",
            EncoderSpec("timm/convnext_ato"),
            "unknown timm network 'convnext_ato': did you mean 'convnext_atto'",
        ),
        ("rgb", EncoderSpec("torchvision/r3d18"), "did you mean 'r3d_18'"),
        (
            "rgb",
            EncoderSpec("conv1d"),
            "'conv1d' cannot encode video modality 'rgb': choose timm/NAME",
        ),
        ("audio", EncoderSpec("torchvision/s3d"), "cannot encode audio modality 'audio': choose timm/NAME"),
        ("inertial", EncoderSpec("timm/test_convnext"), "signal modality 'inertial': choose conv1d"),
        ("rgb", EncoderSpec("timm/convnext_atto", {"deepness": 1}), "convnext_atto.*deepness"),
        ("rgb", EncoderSpec("torchvision/r3d_18", {"deepness": 1}), "r3d_18.*deepness"),
        ("inertial", EncoderSpec("conv1d", {"width": [8]}), "'width': did you mean 'widths'"),
        ("inertial", EncoderSpec("conv1d", pooling="meen"), "unknown pooling 'meen': did you mean 'mean'"),
    ],
)
def test_unsuitable_network_is_rejected_by_name(name: str, spec: EncoderSpec, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build_encoder(modality(name), spec)


@torch.no_grad()
def test_pooled_feature_comes_from_the_tokens(tiny_encoder: Build) -> None:
    torch.manual_seed(0)
    video = noise(2, 4, 3, 32, 32)
    pooled, tokens = build_encoder(modality("rgb"), tiny_encoder(pooling="mean", stack=2)).eval().with_tokens(video)
    assert tokens.shape == (2, 2, 8)
    torch.testing.assert_close(pooled, tokens.mean(dim=1))
    pooled, tokens = (
        build_encoder(modality("depth"), EncoderSpec("torchvision/r3d_18")).eval().with_tokens(video[:, :, :1])
    )
    torch.testing.assert_close(tokens, pooled[:, None])
    signal = EncoderSpec("conv1d", {"widths": [8, 8]}, pooling="mean")
    pooled, tokens = build_encoder(modality("inertial"), signal).eval().with_tokens(noise(2, 40, 6))
    assert tokens.shape == (2, 10, 8)
    torch.testing.assert_close(pooled, tokens.mean(dim=1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "arguments", "count"),
    [
        ("timm/convnext_atto", {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]}, 3),
        ("timm/test_vit", {"img_size": [64, 96]}, 25),
        ("timm/mobilenetv3_small_050", {}, 1),
    ],
)
def test_a_spectrogram_has_a_token_per_column(model: str, arguments: dict[str, object], count: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(modality("audio"), EncoderSpec(model, arguments)).eval()
    spectrogram = noise(2, 1, 64, 96)
    pooled, tokens = encoder.with_tokens(spectrogram)
    torch.testing.assert_close(pooled, encoder(spectrogram))
    assert tokens.shape == (2, count, encoder.features)
    if count == 3:
        # The end of the sound may reach the last column at most through one padded convolution before it.
        changed = spectrogram.clone()
        changed[..., 64:] += 1
        differs = (encoder.with_tokens(changed)[1] - tokens).abs().amax(dim=(0, 2))
        assert differs[2] > differs[0]


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_statistics_and_scales(frozen: bool) -> None:
    spec = EncoderSpec("timm/test_resnet", pooling="mean", frozen_norms=frozen)
    encoder = build_encoder(modality("rgb"), spec).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items() if "running" in name}
    assert before
    encoder(torch.randn(2, 2, 3, 32, 32)).sum().backward()
    after = encoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()) == frozen
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert all(norm.weight.requires_grad != frozen for norm in norms)


def test_stored_features_are_returned_unchanged() -> None:
    encoder = build_encoder(modality("audio"), EncoderSpec("stored/5"))
    stored = torch.randn(3, 4, 5)
    pooled, tokens = encoder.with_tokens(stored)
    assert torch.equal(pooled, stored[:, 0])
    assert torch.equal(tokens, stored[:, 1:])
    assert torch.equal(encoder(stored), pooled)
    assert encoder.features == 5


def test_a_family_is_one_line_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mean(nn.Module):
        features = 3

        def forward(self, video: Tensor) -> Tensor:
            return video.mean(dim=(1, 3, 4))

    def build(entry: Modality, spec: EncoderSpec, name: str) -> nn.Module:
        assert (entry.name, name) == ("rgb", "plain")
        return Mean()

    monkeypatch.setitem(ENCODERS, "mean", Family(build, ("video",)))
    encoder = build_encoder(modality("rgb"), EncoderSpec("mean/plain"))
    assert encoder(torch.ones(2, 4, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(RequestError, match=r"cannot encode audio modality 'audio': choose timm/NAME$"):
        build_encoder(modality("audio"), EncoderSpec("mean/plain"))
    with pytest.raises(RequestError, match="choose timm/NAME or torchvision/NAME or mean/NAME"):
        build_encoder(modality("rgb"), EncoderSpec("medn/plain"))
