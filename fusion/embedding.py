"""A recording as features over time: `load_encoder(folder).embed(path)`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..shards.batching import Batcher
from ..shards.sliding import Window, batch_windows, slide
from ..shards.transforms import ClipSpec, Preparation
from .backbone import Backbone
from .bundle import load_bundle

# Windows per batch. Always so many, so it is no more than a short recording has.
BATCH_SIZE = 8


@dataclass(frozen=True)
class Embedding:
    """Features of n windows of one recording.

    `features` (n, D): the fused embedding; `weights` (n, M): gate weights in the order of `modalities`; `present`
    (n, M): which of them each window has; `start`, `end` (n,): seconds; `by_modality`: (n, D) of each modality alone,
    before the fusion, zero where it is absent.
    """

    modalities: tuple[str, ...]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    features: NDArray[np.float32]
    weights: NDArray[np.float32]
    present: NDArray[np.bool_]
    by_modality: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)


class PretrainedEncoder:
    """A trained `backbone` with the preparation it was trained with; `segments`: views per clip in training.

    The backbone is a torch module in evaluation mode, for whoever has prepared streams; `embed` takes files.
    """

    def __init__(self, backbone: Backbone, spec: ClipSpec, segments: int) -> None:
        self.backbone, self.spec, self.segments = backbone.eval(), spec, segments
        self._preparation = Preparation(spec)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.backbone.modalities

    @property
    def width(self) -> int:
        """D, the length of a feature."""
        return self.backbone.width

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.backbone.parameters()).device

    def to(self, device: torch.device | str) -> "PretrainedEncoder":
        """The same encoder, computing on `device`."""
        self.backbone.to(device)
        self._preparation.to(device)
        return self

    def embed(
        self,
        path: Path | str,
        hop: float | None = None,
        beside: dict[str, Path] | None = None,
        batch_size: int = BATCH_SIZE,
        rates: dict[str, float] | None = None,
    ) -> Embedding:
        """Features of a media file, a window every `hop` seconds (half a window by default).

        `beside`: files of further modalities by name, such as `{"depth": Path("depth.mkv")}`; `rates`: Hz of those
        that do not tell their own. What the recording lacks is absent, and its gate weight zero. `modalgate embed`
        gives the same numbers. Raises `ValueError`, `OSError` or `av.FFmpegError` where it cannot be read.
        """
        files = {"video": Path(path)} | (beside or {})
        return self.embed_windows(slide(files, self.spec, self.modalities, hop, rates), batch_size)

    def embed_windows(self, windows: Iterable[Window], batch_size: int = BATCH_SIZE) -> Embedding:
        """Features of windows as `shards.sliding` cuts them; there is at least one."""
        batcher = Batcher[int, Embedding](self.encode, batch_size)
        found: list[tuple[int, Embedding]] = []
        for number, window in enumerate(windows):
            found += batcher.put(number, window)
        found += batcher.rest()
        return join_embeddings([row for _, row in sorted(found, key=lambda entry: entry[0])])

    @torch.no_grad()
    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        """One batch of windows through the backbone, and an `Embedding` of length one for each of them."""
        batch = batch_windows(list(windows), self.modalities).to(self.device)
        encoded = self.backbone(self._preparation(batch), batch.present, batch.start)
        features, weights = _rows(encoded.embedding), _rows(encoded.weights)
        by_modality = {name: _rows(values) for name, values in encoded.features.items()}
        present = np.array([[name in window.streams for name in self.modalities] for window in windows])
        return [
            Embedding(
                self.modalities,
                np.array([window.start]),
                np.array([window.end]),
                features[row],
                weights[row],
                present[row],
                {name: values[row] for name, values in by_modality.items()},
            )
            for row, window in zip((slice(n, n + 1) for n in range(len(windows))), windows, strict=True)
        ]


def _rows(values: torch.Tensor) -> NDArray[np.float32]:
    return values[:, 0].float().cpu().numpy()


def join_embeddings(parts: Sequence[Embedding]) -> Embedding:
    """One after the other; they are of the same modalities, and there is at least one."""
    return Embedding(
        parts[0].modalities,
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.present for part in parts]),
        {name: np.concatenate([part.by_modality[name] for part in parts]) for name in parts[0].by_modality},
    )


def load_encoder(folder: Path | str) -> PretrainedEncoder:
    """The encoder of a bundle, without its classifier if it has one.

    `folder`: a path, or `hf://owner/name[@revision]` of the hub. Raises what `load_bundle` raises.
    """
    bundle = load_bundle(folder)
    return PretrainedEncoder(bundle.backbone, bundle.spec, bundle.segments)
