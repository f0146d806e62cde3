"""A single network, loaded by the printed lines with timm or torchvision, computes the same as in the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.bundle.single_network import input_form, save_single
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Statistics
from torch import Tensor, nn


def loaded(lines: list[str], folder: Path, inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables after running the printed lines in the folder of the file."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {
        "timm": timm,
        "torch": torch,
        "torchvision": torchvision,
        "safetensors": safetensors,
        "inputs": inputs,
    }
    with torch.no_grad():
        exec("\n".join(lines), names)
    return names


@pytest.mark.parametrize("name", ["rgb", "flow", "audio"])
def test_timm_loads_it_strictly(
    name: str,
    tiny_backbone: Callable[..., Backbone],
    tiny_clip: ClipSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = tiny_backbone(("rgb", "flow", "audio")).eval()
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "bundle")
    lines = save_single(load_bundle(tmp_path / "bundle"), name, tmp_path / f"{name}.safetensors")
    assert len(lines) == 3
    inputs = torch.randn(5, {"rgb": 3, "flow": 2, "audio": 1}[name], 32, 32)
    found = loaded(lines, tmp_path, inputs, monkeypatch)
    with torch.no_grad():
        expected = backbone.encoders[name].network(inputs)  # pyright: ignore
    torch.testing.assert_close(found["features"], expected, rtol=1e-6, atol=1e-6)


def test_stack_of_frames_sets_the_channels(
    tiny_encoder: Callable[..., EncoderSpec], tiny_clip: ClipSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = BackboneSpec(width=8, encoders={"video": tiny_encoder(stack=2)})
    lines = save_single(Bundle(Backbone(("flow",), spec), tiny_clip, 1), "flow", tmp_path / "flow.safetensors")
    assert "in_chans=4" in lines[0]
    assert loaded(lines, tmp_path, torch.randn(1, 4, 32, 32), monkeypatch)["features"].shape == (1, 8)


@pytest.mark.parametrize("model", ["r3d_18", "s3d"])
@pytest.mark.parametrize("name", ["rgb", "flow"])
def test_torchvision_loads_it_strictly(
    model: str, name: str, tiny_clip: ClipSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    spec = BackboneSpec(width=8, encoders={"video": EncoderSpec(f"torchvision/{model}")})
    backbone = Backbone((name,), spec).eval()
    lines = save_single(Bundle(backbone, tiny_clip, 1), name, tmp_path / "one.safetensors")
    inputs = torch.randn(1, 3 if name == "rgb" else 2, 9, 32, 32)
    found = loaded(lines, tmp_path, inputs, monkeypatch)
    encoder = backbone.encoders[name]
    assert isinstance(encoder.network, nn.Module)
    with torch.no_grad():
        torch.testing.assert_close(found["features"], encoder.network(inputs), rtol=1e-5, atol=1e-5)


def test_input_is_described_in_the_stored_unit(tiny_clip: ClipSpec) -> None:
    statistics = {"rgb": Statistics((1.0, 2.0, 3.5), (50.0, 60.0, 70.0)), "flow": Statistics((0.4, 0.2), (1.5, 2.5))}
    spec = ClipSpec(**(vars(tiny_clip) | {"statistics": statistics}))
    assert input_form(spec, "rgb") == "(N, 3, 32, 32): (level - [1, 2, 3.5]) / [50, 60, 70]"
    assert input_form(spec, "flow") == "(N, 2, 32, 32): (pixel/frame - [0, 0]) / [1.5, 2.5]"
    assert input_form(spec, "rgb", family="torchvision").startswith("(N, 3, 2, 32, 32): ")


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("rbg", "a.safetensors", "did you mean 'rgb'"),
        ("rgb", "a.pt", "ends in .safetensors"),
        ("inertial", "a.safetensors", "neither a timm nor a torchvision network"),
    ],
)
def test_network_that_cannot_be_exported_is_rejected(
    name: str,
    file: str,
    message: str,
    tiny_backbone: Callable[..., Backbone],
    tiny_clip: ClipSpec,
    tmp_path: Path,
) -> None:
    bundle = Bundle(tiny_backbone(("rgb", "inertial")), tiny_clip, 1)
    with pytest.raises(RequestError, match=message):
        save_single(bundle, name, tmp_path / file)
    assert list(tmp_path.iterdir()) == []
