"""Bundles of hostile senders: refused in one line, without other files, addresses, memory or random numbers."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.bundle.bundle_files import CARD, FACTS, WEIGHTS
from modalgate.fusion.bundle.bundle_limits import MOST_HEADER, build_within
from modalgate.fusion.bundle.embedder import load_encoder
from modalgate.fusion.bundle.integrity import seal
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms_by_name import fusions_at
from modalgate.fusion.spec import EncoderSpec
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError, RequestError
from safetensors.torch import save_file
from torch import nn

from .tensor_equality import same_tensors

# Every file that Python opens and every address that it resolves or connects to, from the call on.
WATCHED = """
import resource, sys
import modalgate.fusion.bundle.bundle, timm, torch
from modalgate.fusion import load_bundle
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
touched = []

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = Path(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()).resolve()
        if folder not in path.parents and path.suffix not in (".py", ".pyc", ".so"):
            touched.append(str(path))
    elif event.startswith(("socket.", "urllib.", "subprocess.", "os.system", "pickle.")):
        touched.append(event)

sys.addaudithook(hook)
try:
    load_bundle(folder)
    print("loaded")
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
print(touched)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture
def folder(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path) -> Path:
    path = tmp_path / "hostile"
    classifier = Classifier(tiny_backbone(("rgb", "audio", "inertial")), ["calm", "fight"]).eval()
    save_bundle(Bundle(classifier, tiny_clip, 3, "violence", "fight"), path)
    return path


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Alters the facts, and seals them as if they had been exported so."""
    facts = json.loads((folder / FACTS).read_text())
    change(facts)
    (folder / FACTS).write_text(json.dumps(seal(facts, folder, (WEIGHTS, CARD))))


def rgb(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda facts: facts["backbone"]["encoders"]["rgb"].update(fields)


class Called(BaseHTTPRequestHandler):
    """Counts requests."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # pyright: ignore[reportAttributeAccessIssue]
        self.send_error(404)

    do_HEAD = do_GET


def test_loading_opens_nothing_but_the_bundle(folder: Path, tmp_path: Path) -> None:
    """The facts name an address and files in every way that timm reads weights by."""
    with HTTPServer(("127.0.0.1", 0), Called) as server:
        server.asked = []  # pyright: ignore[reportAttributeAccessIssue]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        secret = tmp_path / "secret.pth"
        torch.save({"a": torch.zeros(1)}, secret)
        encoder = {
            "pretrained": True,
            "weights": str(secret),
            "arguments": {
                "depths": [1, 1, 1, 1],
                "dims": [4, 4, 8, 8],
                "pretrained": True,
                "pretrained_cfg": {"url": url, "custom_load": True},
                "pretrained_cfg_overlay": {"url": url, "file": str(secret)},
                "checkpoint_path": str(secret),
                "cache_dir": str(tmp_path / "cache"),
            },
        }
        forge(folder, rgb(**encoder))
        command = [sys.executable, "-c", WATCHED, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    outcome, touched, _ = done.stdout.splitlines()
    assert (outcome, touched) == ("loaded", "[]")
    assert not server.asked  # pyright: ignore[reportAttributeAccessIssue]
    assert not (tmp_path / "cache").exists()


def test_loading_and_saving_leave_the_random_state_alone(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    bundle = load_bundle(folder)
    load_encoder(folder)
    save_bundle(bundle, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)


def deep(kind: str, levels: int = 200_000) -> str:
    opening, closing = ("[", "]") if kind == "list" else ('{"a":', "}")
    return opening * levels + ("1" if kind == "dict" else "") + closing * levels


def nested(facts: dict[str, Any]) -> None:
    content: Any = 1
    for _ in range(200):
        content = [content]
    facts["provenance"] = {"a": content}


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "an argument that is not the network's": rgb(arguments={"features_only": True}),
    "an argument that fetches": rgb(arguments={"hf_hub_id": "owner/name"}),
    "a network at an address": rgb(model="timm/hf-hub:owner/name", arguments={}),
    "a network in a folder": rgb(model="timm/local-dir:/etc", arguments={}),
    "a wide network": rgb(arguments={"depths": [1, 1, 1, 1], "dims": [2**20] * 4}),
    "a deep network": rgb(arguments={"depths": [2**20, 1, 1, 1], "dims": [4, 4, 8, 8]}),
    "a number beyond memory": rgb(arguments={"dims": [10**30]}),
    "computed tables": rgb(model="timm/swin_tiny_patch4_window7_224", arguments={"window_size": 2000}),
    "a wide signal": lambda facts: facts["backbone"]["encoders"]["inertial"].update(
        arguments={"widths": [2**19] * 9}
    ),
    "stored features": rgb(model="stored/99999999999", arguments={}),
    "a wide fusion": lambda facts: facts["backbone"].update(width=2**20),
    "a negative width": lambda facts: facts["backbone"].update(width=-3),
    "a fractional width": lambda facts: facts["backbone"].update(width=2.5),
    "many experts": lambda facts: facts["backbone"].update(fusion="topk", fusion_arguments={"experts": 10**9}),
    "many classes": lambda facts: facts.update(classes=[str(number) for number in range(200_000)]),
    "classes twice": lambda facts: facts.update(classes=["calm", "calm"], positive="calm"),
    "no classes": lambda facts: facts.update(classes=[], positive=None),
    "classes that are numbers": lambda facts: facts.update(classes=[1, 2], positive=None),
    "a positive class that is not one": lambda facts: facts.update(positive="other"),
    "many views": lambda facts: facts.update(segments=10**9),
    "no views": lambda facts: facts.update(segments=0),
    "a long window": lambda facts: facts["clip"].update(seconds=1e9),
    "many frames": lambda facts: facts["clip"].update(frames=10**9),
    "large pictures": lambda facts: facts["clip"].update(size=10**6),
    "large windows": lambda facts: facts["clip"].update(size=8192, frames=4096),
    "a high sample rate": lambda facts: facts["clip"].update(sample_rate=10**12),
    "no frame rate": lambda facts: facts["clip"].update(fps=0),
    "a frame rate that is not a number": lambda facts: facts["clip"].update(fps=float("nan")),
    "statistics that are not numbers": lambda facts: facts["clip"]["statistics"]["rgb"].update(
        mean=[float("nan")] * 3
    ),
    "a hop of nothing": lambda facts: facts["application"].update(hop=1e-12),
    "an endless piece": lambda facts: facts["application"].update(piece=float("inf")),
    "text as a piece": lambda facts: facts["application"].update(piece="1"),
    "a threshold that is not a number": lambda facts: facts["application"].update(threshold=float("nan")),
    "deep provenance": nested,
    "metrics as text": lambda facts: facts.update(metrics={"auc": "<script>"}),
    "modalities twice": lambda facts: facts.update(modalities=["rgb", "rgb"]),
    "no modalities": lambda facts: facts.update(modalities=[]),
    "files as a list": lambda facts: facts.update(modalities={"rgb": 1}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_facts_are_refused_in_one_line(name: str, folder: Path) -> None:
    forge(folder, HOSTILE[name])
    with pytest.raises((DataError, RequestError)) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a wide network", "a deep network", "computed tables", "a wide signal"])
def test_hostile_sizes_take_no_memory(name: str, folder: Path) -> None:
    sizes = []
    for change in (lambda facts: None, HOSTILE[name]):
        forge(folder, change)
        done = subprocess.run([sys.executable, "-c", WATCHED, folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        sizes.append(int(done.stdout.splitlines()[-1]))
    assert sizes[1] - sizes[0] < 200


@pytest.mark.parametrize("content", [deep("list"), deep("dict"), "9" * 5000, "1e999", '"' + "a" * 17 * 2**20 + '"'])
def test_facts_that_are_not_facts_are_refused_in_one_line(content: str, folder: Path) -> None:
    (folder / FACTS).write_text(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_class_of_a_package_that_is_not_allowed_is_not_imported(folder: Path) -> None:
    forge(folder, rgb(model="antigravity:webbrowser"))
    with pytest.raises(RequestError, match="runs code of the package 'antigravity'"):
        load_bundle(folder)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "header",
    [
        (MOST_HEADER + 1).to_bytes(8, "little") + b" " * 100,
        (2**63).to_bytes(8, "little"),
        b"\x02\0\0\0\0\0\0\0[]",
        b"abc",
        b"",
    ],
)
def test_damaged_list_of_tensors_is_refused_in_one_line(header: bytes, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(header)
    forge(folder, lambda facts: None)
    with pytest.raises(DataError, match="is damaged") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_no_memory_is_allocated_for_tensors_that_differ(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "linear.safetensors")
    real: list[bool] = []

    def build(width: int) -> nn.Linear:
        layer = nn.Linear(width, 2)
        real.append(not layer.weight.is_meta)
        return layer

    with pytest.raises(ValueError, match=r"tensor 'weight' is 2 x 3 there and 2 x 1000000000000 in the network"):
        build_within(lambda: build(10**12), tmp_path / "linear.safetensors")
    assert real == [False]
    assert not build_within(lambda: build(3), tmp_path / "linear.safetensors").weight.is_meta


@pytest.mark.parametrize("fusion", fusions_at("decision"))
def test_every_decision_is_built_without_values(
    fusion: str, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    classifier = Classifier(tiny_backbone(("rgb", "audio")), ["calm", "fight"], decision=fusion)
    save_bundle(Bundle(classifier, tiny_clip, 2), tmp_path / "bundle")
    assert same_tensors(load_bundle(tmp_path / "bundle").model, classifier)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("timm/regnetx_002", {"depth": 12, "se_ratio": 0.25}),
        ("timm/efficientnet_lite0", {"drop_path_rate": 0.1}),
        ("timm/vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2, "dynamic_img_size": True}),
        ("timm/swinv2_tiny_window8_256", {"img_size": 64, "window_size": 4, "pretrained_window_sizes": [2, 2, 2, 1]}),
        ("timm/resnet18", {"block_args": {"attn_layer": "se"}, "output_stride": 16}),
        ("torchvision/r3d_18", {}),
        ("torchvision/swin3d_t", {"dropout": 0.1}),
    ],
)
def test_arguments_of_an_architecture_are_kept(
    model: str, arguments: dict[str, Any], tiny_clip: ClipSpec, tmp_path: Path, tiny_backbone: Callable[..., Backbone]
) -> None:
    backbone = tiny_backbone(("rgb",), encoders={"rgb": EncoderSpec(model, arguments, pooling="mean")}).eval()
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle").backbone
    assert same_tensors(loaded, backbone)
    assert str(loaded) == str(backbone)
