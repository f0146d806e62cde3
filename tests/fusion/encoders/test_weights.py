"""Encoders that start from known weights: files, published ones, other channels, and what does not fit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from modalgate.fusion.encoders.encoders import VIDEO_MODELS, build_encoder
from modalgate.fusion.encoders.weights import adapt_channels, stem_weights
from modalgate.fusion.spec import EncoderSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.modality import modality
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models import video as video_models

from ...hub import Hub, Model

Build = Callable[..., EncoderSpec]
FLAGS = [EncoderSpec("timm/test_resnet", pretrained=True), EncoderSpec("timm/test_resnet", {"pretrained": True})]
# Stems of several kinds: plain and patchifying convolutions, a patch embedding, two branches side by side.
TIMM = ("test_convnext", "test_vit", "test_efficientnet", "test_mambaout")
CASES = [(network, name, stack) for network in TIMM for name, stack in (("rgb", 8), ("flow", 1))]
CASES += [("test_resnet", name, stack) for name in ("rgb", "flow", "depth") for stack in (1, 8)]
CASES += [("test_resnet", "audio", 1), ("test_vit", "audio", 1), ("fastvit_t8", "flow", 1)]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def encode(encoder: nn.Module, stream: Tensor) -> Tensor:
    return encoder.eval()(stream)


def made_by_timm(folder: Path, name: str, **arguments: object) -> tuple[nn.Module, Path]:
    torch.manual_seed(1)
    network, path = timm.create_model(name, **arguments), folder / f"{name}.safetensors"  # pyright: ignore
    save_file(network.state_dict(), path)
    return network.eval(), path


def test_a_stem_for_other_channels_is_the_mean_filter_scaled() -> None:
    for old, channels, places in ((3, 24, 1), (3, 2, 1), (3, 1, 1), (1, 3, 1), (3, 2, 16), (24, 8, 1)):
        weight = noise(5, places * old, 3, 3)
        adapted = adapt_channels(weight, channels, places * channels)
        assert adapted.shape == (5, places * channels, 3, 3)
        for place in range(places):
            mean = weight[:, place * old : (place + 1) * old].mean(dim=1)
            for channel in range(channels):
                torch.testing.assert_close(adapted[:, place * channels + channel], mean * old / channels)


@pytest.mark.parametrize(("network", "name", "stack"), CASES)
def test_timm_file_for_three_channels_keeps_the_response_to_equal_channels(
    network: str, name: str, stack: int, tmp_path: Path
) -> None:
    fixed = {"img_size": 64} if network == "test_vit" else {}
    original, path = made_by_timm(tmp_path, network, **fixed)
    spec = EncoderSpec(f"timm/{network}", fixed, "mean", stack, weights=str(path))
    encoder = build_encoder(modality(name), spec)
    gray = noise(2, 1, 64, 64)
    with torch.no_grad():
        expected = original.forward_head(original.forward_features(gray.expand(-1, 3, -1, -1)), pre_logits=True)  # pyright: ignore
    stream = gray if name == "audio" else gray[:, None].expand(-1, stack, modality(name).channels, -1, -1)
    largest = expected.abs().max()  # an untrained network of many branches answers in millions
    torch.testing.assert_close(encode(encoder, stream) / largest, expected / largest, rtol=1e-3, atol=1e-4)
    state, theirs = encoder.network.state_dict(), original.state_dict()  # pyright: ignore
    for key in stem_weights(encoder.network):  # pyright: ignore
        mean = theirs[key].mean(dim=1, keepdim=True).expand_as(state[key])
        wanted = theirs[key] if (name, stack) == ("rgb", 1) else mean * 3 / state[key].shape[1]
        torch.testing.assert_close(state[key], wanted)


@pytest.mark.parametrize("name", ["rgb", "flow", "depth"])
@pytest.mark.parametrize(
    "network", ["s3d", *(pytest.param(name, marks=pytest.mark.slow) for name in VIDEO_MODELS if name != "s3d")]
)
def test_torchvision_file_for_three_channels_keeps_the_response_to_equal_channels(
    network: str, name: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    published, path = getattr(video_models, network)(weights=None, num_classes=7).eval(), tmp_path / "published.pth"
    torch.save(published.state_dict(), path)
    channels = modality(name).channels
    encoder = build_encoder(modality(name), EncoderSpec(f"torchvision/{network}", weights=str(path))).eval()
    stem, theirs = stem_weights(encoder.network)[0], published.state_dict()  # pyright: ignore
    state = encoder.network.state_dict()  # pyright: ignore
    assert all(torch.equal(value, theirs[key]) for key, value in state.items() if key != stem)
    assert torch.equal(state[stem], theirs[stem]) == (channels == 3)
    gray = noise(1, 1, 8, 48, 48)
    place = stem.removesuffix(".weight")
    with torch.no_grad():
        expected = published.get_submodule(place)(gray.expand(-1, 3, -1, -1, -1))
        found = encoder.network.get_submodule(place)(gray.expand(-1, channels, -1, -1, -1))  # pyright: ignore
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_local_weights_load_with_any_classifier(tiny_encoder: Build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = build_encoder(modality("rgb"), tiny_encoder())
    path = tmp_path / "weights.safetensors"
    state = trained.network.state_dict()  # pyright: ignore
    save_file(state | {"head.fc.weight": torch.zeros(5, 8), "head.fc.bias": torch.zeros(5)}, path)
    started = build_encoder(modality("rgb"), tiny_encoder(weights=str(path)))
    assert all(torch.equal(value, state[key]) for key, value in started.network.state_dict().items())  # pyright: ignore


def test_weights_of_an_adapted_network_load_unchanged(tiny_encoder: Build, tmp_path: Path) -> None:
    """Such as `modalgate export --modality` writes of an encoder for flow."""
    torch.manual_seed(0)
    trained = build_encoder(modality("flow"), tiny_encoder(stack=2)).network.state_dict()  # pyright: ignore
    save_file(trained, tmp_path / "flow.safetensors")
    spec = tiny_encoder(stack=2, weights=str(tmp_path / "flow.safetensors"))
    started = build_encoder(modality("flow"), spec).network.state_dict()  # pyright: ignore
    assert all(torch.equal(value, trained[key]) for key, value in started.items())
    # Four channels become one.
    depth = build_encoder(modality("depth"), tiny_encoder(weights=spec.weights)).network.state_dict()  # pyright: ignore
    torch.testing.assert_close(depth["stem.0.weight"], trained["stem.0.weight"].sum(dim=1, keepdim=True))


def test_transformer_accepts_weights_for_another_picture_size(tmp_path: Path) -> None:
    original, path = made_by_timm(tmp_path, "test_vit", num_classes=5)
    spec = EncoderSpec("timm/test_vit", {"img_size": [64, 96]}, weights=str(path))
    state = build_encoder(modality("audio"), spec).network.state_dict()  # pyright: ignore
    theirs = original.state_dict()
    assert state["pos_embed"].shape[1] < theirs["pos_embed"].shape[1]
    assert torch.equal(state["blocks.1.mlp.fc1.weight"], theirs["blocks.1.mlp.fc1.weight"])
    torch.testing.assert_close(state["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"].sum(1, True))


def test_unfitting_weights_are_rejected_with_a_reason(tiny_encoder: Build, tmp_path: Path) -> None:
    state = build_encoder(modality("rgb"), tiny_encoder()).network.state_dict()  # pyright: ignore
    path = tmp_path / "weights.safetensors"

    def refused(*parts: str, **changes: object) -> None:
        with pytest.raises(RequestError) as found:
            build_encoder(modality("rgb"), tiny_encoder(weights=str(changes.get("path", path))))
        message = str(found.value)
        assert "\n" not in message
        assert all(part in message for part in (*parts, "timm/convnext_atto")), message

    refused(f"weights file '{path}'", "does not exist")
    path.write_bytes(b"not a safetensors file")
    refused(str(path), "complete safetensors file")
    key, deep = "stem.0.weight", "stages.1.blocks.0.mlp.fc1.weight"
    save_file({k: v for k, v in state.items() if k != key}, path)
    refused(str(path), f"'{key}' (4 x 3 x 4 x 4) is missing")
    save_file(state | {"stages.9.weight": torch.zeros(1)}, path)
    refused(str(path), "'stages.9.weight' (1) is not in the network")
    save_file(state | {key: torch.zeros(2, 2)}, path)
    refused(str(path), f"'{key}' is 2 x 2 there and 4 x 3 x 4 x 4 in the network", "'dims': [4, 4, 8, 8]")
    save_file(state | {deep: torch.zeros(16, 3)}, path)
    refused(f"'{deep}' is 16 x 3 there")
    # A stem with another number of filters is another network, with any number of channels.
    save_file(state | {key: torch.zeros(5, 1, 4, 4)}, path)
    refused(f"'{key}' is 5 x 1 x 4 x 4 there")
    save_file(state | {key: torch.zeros(2, 2)}, path, {"model": "timm/test_resnet"})
    refused("of 'timm/test_resnet'")
    for content in ([1, 2], {"epoch": 3, "state": {}}):
        torch.save(content, tmp_path / "whole.pth")
        refused("state dict", path=tmp_path / "whole.pth")
    (tmp_path / "whole.pth").write_bytes(b"no tensors")
    refused("state dict", path=tmp_path / "whole.pth")


def test_signals_have_no_published_weights() -> None:
    with pytest.raises(RequestError, match="encoder 'conv1d' has no published weights"):
        build_encoder(modality("inertial"), EncoderSpec("conv1d", pretrained=True))


def published_by_timm(hub: Hub, name: str, network: nn.Module) -> None:
    """What the hub has of `name`, in the repository that timm names."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id  # pyright: ignore
    assert repository
    hub.models[repository] = Model(private=False)
    hub.models[repository].commit("main", {"model.safetensors": save(network.state_dict())})


@pytest.mark.parametrize("spec", FLAGS)
def test_published_weights_come_from_the_hub(hub: Hub, spec: EncoderSpec) -> None:
    torch.manual_seed(1)
    original = timm.create_model("test_resnet")
    published_by_timm(hub, "test_resnet", original)
    theirs = original.state_dict()
    for name, channels in (("rgb", 3), ("flow", 2), ("audio", 1)):
        hub.down = name == "audio"  # what was fetched before serves without the hub
        state = build_encoder(modality(name), spec).network.state_dict()  # pyright: ignore
        assert all(torch.equal(value, theirs[key]) for key, value in state.items() if key != "conv1.0.weight")
        stem = theirs["conv1.0.weight"]
        expected = stem if channels == 3 else stem.mean(1, True).expand(-1, channels, -1, -1) * 3 / channels
        torch.testing.assert_close(state["conv1.0.weight"], expected)


def test_published_weights_for_another_architecture_are_rejected_with_a_reason(hub: Hub) -> None:
    published_by_timm(hub, "test_resnet", timm.create_model("test_resnet"))
    deeper = EncoderSpec("timm/test_resnet", {"layers": [2, 1, 1, 1]}, pretrained=True)
    with pytest.raises(
        RequestError, match=r"published weights do not fit encoder 'timm/test_resnet'.*layer1\.1\..*is missing"
    ):
        build_encoder(modality("rgb"), deeper)
    wider = EncoderSpec("timm/test_resnet", {"channels": [8, 8, 8, 8]}, pretrained=True)
    with pytest.raises(RequestError, match=r"tensor '.*' is .* there and .* in the network"):
        build_encoder(modality("rgb"), wider)


def test_unreachable_hub_is_one_line(hub: Hub) -> None:
    with pytest.raises(RequestError) as absent:
        build_encoder(modality("rgb"), EncoderSpec("timm/test_vit", pretrained=True))
    hub.down = True
    with pytest.raises(RequestError) as down:
        build_encoder(modality("rgb"), EncoderSpec("timm/test_convnext", pretrained=True))
    for found, name in ((absent, "timm/test_vit"), (down, "timm/test_convnext")):
        assert "\n" not in str(found.value)
        assert name in str(found.value)
        assert f"from {hub.url}" in str(found.value)
        assert "weights: FILE" in str(found.value)


def test_a_network_without_published_weights_is_named() -> None:
    name = "convnext_atto_rms"
    with pytest.raises(RequestError, match=f"no weights of 'timm/{name}': give weights: FILE"):
        build_encoder(modality("rgb"), EncoderSpec(f"timm/{name}", pretrained=True))


def test_torchvision_weights_are_published_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    spec = EncoderSpec("torchvision/s3d", pretrained=True)
    with pytest.raises(
        RequestError, match=r"'torchvision/s3d' from https://download\.pytorch\.org .*weights: FILE"
    ) as found:
        build_encoder(modality("rgb"), spec)
    assert isinstance(found.value.__cause__, URLError)
    # What was downloaded before is read again.
    torch.manual_seed(1)
    published, place = video_models.s3d(weights=None), get_model_weights("s3d").DEFAULT.url  # pyright: ignore
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    torch.save(published.state_dict(), tmp_path / "checkpoints" / place.rpartition("/")[2])
    state, theirs = build_encoder(modality("depth"), spec).network.state_dict(), published.state_dict()  # pyright: ignore
    stem = stem_weights(published)[0]
    torch.testing.assert_close(state[stem], theirs[stem].mean(dim=1, keepdim=True) * 3)
    assert all(torch.equal(value, theirs[key]) for key, value in state.items() if key != stem)


def test_timm_loader_gets_its_pretrained_arguments(tmp_path: Path) -> None:
    source, path = made_by_timm(tmp_path, "test_resnet", num_classes=0)
    arguments = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path), "num_classes": 0}}
    encoder = build_encoder(modality("rgb"), EncoderSpec("timm/test_resnet", arguments, pooling="mean"))
    assert torch.equal(encoder.network.state_dict()["conv1.0.weight"], source.state_dict()["conv1.0.weight"])  # pyright: ignore


def test_specs_need_no_torch() -> None:
    code = "import sys; import modalgate.fusion.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
