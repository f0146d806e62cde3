"""Backbones of a few thousand weights, backbones with a known output, and batches of random media."""

import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import Statistics
from modalgate.shards.modality import MODALITIES
from torch import Tensor, nn

from .browser import Browser, open_browser
from .hub import TOKEN, Hub, open_hub

FRAMES, SIZE, SECONDS, SAMPLE_RATE = 2, 32, 0.4, 8000

# A shell starts background jobs with SIGINT ignored, and what they start inherits that: tests of Ctrl-C would hang.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """One thread: threading costs more than computing such small tensors. A training sets its own number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium for all pages of the run; a page is left with `open`, `look` holds until the next one."""
    with open_browser() as opened:
        yield opened


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, which the client takes for the real one; its user is logged in, its cache is empty.

    Also for processes that the test starts.
    """
    from huggingface_hub import constants

    with open_hub() as opened:
        monkeypatch.setattr(constants, "ENDPOINT", opened.url)
        template = opened.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        # Its newer transfer wants a storage service that only the real hub has.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_ENDPOINT", opened.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield opened


@pytest.fixture(scope="session")
def tiny_encoder() -> Callable[..., EncoderSpec]:
    """An encoder spec with 8 features; keyword arguments replace its fields."""

    def build(**changes: Any) -> EncoderSpec:
        arguments = {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]}
        return EncoderSpec(**({"model": "timm/convnext_atto", "arguments": arguments, "pooling": "mean"} | changes))

    return build


@pytest.fixture(scope="session")
def tiny_backbone(tiny_encoder: Callable[..., EncoderSpec]) -> Callable[..., Backbone]:
    """`tiny_backbone(modalities, **fields of its BackboneSpec)`: width 8, always the same random weights."""

    def build(modalities: tuple[str, ...] = ("rgb", "audio"), **changes: Any) -> Backbone:
        encoders = {
            "video": tiny_encoder(),
            "audio": tiny_encoder(),
            "signal": EncoderSpec("conv1d", {"widths": [8, 8]}, pooling="mean"),
        }
        torch.manual_seed(0)
        return Backbone(modalities, BackboneSpec(**({"width": 8, "encoders": encoders} | changes)))

    return build


class LevelEncoder(nn.Module):
    """Encodes a segment as its mean times `gain`, then a 1, then zeros. The mean is brightness or loudness."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.features, self.gain = width, nn.Parameter(torch.tensor(gain))

    def forward(self, stream: Tensor) -> Tensor:
        level = stream.flatten(1).mean(dim=1) * self.gain
        return nn.functional.pad(torch.stack([level, torch.ones_like(level)], dim=1), (0, self.features - 2))


@pytest.fixture(scope="session")
def planted_backbone(tiny_backbone: Callable[..., Backbone]) -> Callable[..., Backbone]:
    """`planted_backbone(modalities, gain)`: the feature of a segment is (gain x its mean, 1, 0, ...), of width 8.

    The mean is of the prepared stream: brightness for pictures, loudness for sound. The fused embedding is the mean
    over the present modalities.
    """

    def build(modalities: tuple[str, ...] = ("rgb", "audio"), gain: float = 1.0) -> Backbone:
        backbone = tiny_backbone(modalities, fusion="static")
        for name in modalities:
            backbone.encoders[name], backbone.projections[name] = LevelEncoder(8, gain), nn.Identity()
        return backbone

    return build


@pytest.fixture(scope="session")
def planted_classifier(planted_backbone: Callable[..., Backbone]) -> Callable[..., Classifier]:
    """`planted_classifier(modalities, classes, **arguments)`: P(second of two classes) = sigmoid(x).

    x is the fused mean of `planted_backbone`.
    """

    def build(
        modalities: tuple[str, ...] = ("rgb", "audio"), classes: Sequence[str] = ("a", "b"), **arguments: Any
    ) -> Classifier:
        classifier = Classifier(planted_backbone(modalities), classes, **arguments)
        (layer,) = (part for part in classifier.head.modules() if isinstance(part, nn.Linear))
        with torch.no_grad():
            layer.weight.zero_()[1, 0] = 1.0
            layer.bias.zero_()
        return classifier.eval()

    return build


@pytest.fixture(scope="session")
def tiny_clip() -> ClipSpec:
    """What the tiny backbones see: 2 frames of 32 pixels and 0.4 s of sound."""
    statistics = {
        name: Statistics((1.0,) * entry.channels, (50.0 if entry.kind == "video" else 2.0,) * entry.channels)
        for name, entry in MODALITIES.items()
    }
    return ClipSpec(SECONDS, FRAMES, SIZE, SIZE, 10.0, SAMPLE_RATE, 14.0, statistics)


@pytest.fixture(scope="session")
def tiny_batch() -> Callable[..., Batch]:
    """`tiny_batch(clips, segments, modalities, absent={(modality, clip)})`: random media as the stream delivers them.

    A modality that no clip has is not among the streams, as in a real batch.
    """

    def build(
        clips: int = 4,
        segments: int = 2,
        modalities: Sequence[str] = ("rgb", "audio"),
        absent: Collection[tuple[str, int]] = (),
        label: Sequence[int] | None = None,
        valid: Sequence[bool] | None = None,
        seed: int = 0,
    ) -> Batch:
        generator = torch.Generator().manual_seed(seed + 1000)
        streams: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        for name in modalities:
            kept = torch.tensor([(name, clip) not in absent for clip in range(clips)])
            present[name] = kept[:, None].expand(clips, segments).clone()
            if bool(kept.any()):
                streams[name] = _media(name, (clips, segments), generator)
        return Batch(
            streams,
            present,
            [f"clip-{seed}-{number}" for number in range(clips)],
            torch.arange(segments).float().expand(clips, segments) * 0.5,
            None if label is None else torch.tensor(label),
            torch.tensor(valid or [True] * clips),
            seed,
        )

    return build


def _media(name: str, leading: tuple[int, int], generator: torch.Generator) -> Tensor:
    entry = MODALITIES[name]
    if entry.kind == "video":
        shape = (*leading, FRAMES, entry.channels, SIZE, SIZE)
        values = torch.randint(0, 256, shape, generator=generator)
        return values.to(torch.uint16 if name == "depth" else torch.uint8)
    if entry.kind == "audio":
        return torch.randn(*leading, round(SECONDS * SAMPLE_RATE), generator=generator) * 0.1
    return torch.randn(*leading, 20, entry.channels, generator=generator)
