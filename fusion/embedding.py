"""A recording as features over time: `load_encoder(folder).embed(path)`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..shards.sliding import Window, batch_windows, slide
from ..shards.transforms import ClipSpec, Preparation
from .backbone import Backbone
from .bundle import load_bundle


@dataclass(frozen=True)
class Embedding:
    """Features of n windows of one recording.

    `features` (n, D): the fused embedding; `weights` (n, M): gate weights in the order of `modalities`; `present`
    (n, M): which of them each window has; `start`, `end` (n,): seconds.
    """

    modalities: tuple[str, ...]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    features: NDArray[np.float32]
    weights: NDArray[np.float32]
    present: NDArray[np.bool_]

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
        batch_size: int = 16,
    ) -> Embedding:
        """Features of a media file, a window every `hop` seconds (half a window by default).

        `beside`: files of further modalities by name, such as `{"depth": Path("depth.mkv")}`. What the recording
        lacks is absent, and its gate weight zero. Raises `ValueError`, `OSError` or `av.FFmpegError` where it cannot
        be read.
        """
        files = {"video": Path(path)} | (beside or {})
        parts, held = [], list[Window]()
        for window in slide(files, self.spec, self.modalities, hop):
            held.append(window)
            if len(held) == batch_size:
                parts.append(self._embed_windows(held))
                held = []
        if held:
            parts.append(self._embed_windows(held))
        return join_embeddings(parts)

    @torch.no_grad()
    def _embed_windows(self, windows: list[Window]) -> Embedding:
        batch = batch_windows(windows, self.modalities).to(next(self.backbone.parameters()).device)
        encoded = self.backbone(self._preparation(batch), batch.present, batch.start)
        return Embedding(
            self.modalities,
            np.array([window.start for window in windows]),
            np.array([window.end for window in windows]),
            encoded.embedding[:, 0].float().cpu().numpy(),
            encoded.weights[:, 0].float().cpu().numpy(),
            torch.stack([encoded.present[name][:, 0] for name in self.modalities], dim=-1).cpu().numpy(),
        )


def join_embeddings(parts: list[Embedding]) -> Embedding:
    """One after the other; they are of the same modalities, and there is at least one."""
    return Embedding(
        parts[0].modalities,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("start", "end", "features", "weights", "present")
        ),
    )


def load_encoder(folder: Path | str) -> PretrainedEncoder:
    """The encoder of a bundle, without its classifier if it has one; what `load_bundle` raises."""
    bundle = load_bundle(folder)
    return PretrainedEncoder(bundle.backbone, bundle.spec, bundle.segments)
