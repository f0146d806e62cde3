"""Features of a recording over time: `load_encoder(folder).embed(path)`."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...shards.clip_spec import ClipSpec
from ...shards.clips.application import Application, default_application
from ...shards.clips.piece import Piece, Window
from ...shards.live.pieces import recording_pieces
from ...shards.live.sliding import batch_windows
from ...shards.live.window_batches import Batcher
from ...shards.transforms import Preparation
from ..backbone import Backbone
from .bundle import load_bundle

# Windows per batch. Small, because short recordings have few windows.
BATCH_SIZE = 8


@dataclass(frozen=True)
class Embedding:
    """Features of n pieces of one recording, each the mean over the views of the piece.

    modalities: M names, in the order of `weights` and `present`.
    start: (n,), start of each piece in seconds.
    end: (n,), end of each piece in seconds.
    features: (n, D), fused embeddings.
    weights: (n, M), gate weights.
    present: (n, M) bool, whether the piece has the modality.
    by_modality: (n, D) features of each modality before the fusion, zero where it is absent.
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
    """A trained backbone with its preparation, for files (`embed`) or batches (`backbone`).

    backbone: is set to evaluation mode.
    spec: how segments are prepared.
    segments: views per clip in training.
    application: how recordings are cut into pieces; default: `default_application`.
    """

    def __init__(
        self, backbone: Backbone, spec: ClipSpec, segments: int, application: Application | None = None
    ) -> None:
        self.backbone, self.spec, self.segments = backbone.eval(), spec, segments
        self.application = application or default_application(spec, segments)
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
        """The device of the parameters."""
        return next(self.backbone.parameters()).device

    def to(self, device: torch.device | str) -> "PretrainedEncoder":
        """Moves the encoder to `device` and returns it."""
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
        """Features of a media file.

        path: the file, or a folder of frames.
        hop: seconds between pieces; default: `Application.hop`. A recording as short as the training clips gives one
            row, a longer one gives a row per piece.
        beside: files of further modalities by name, such as `{"depth": Path("depth.mkv")}`.
        batch_size: views per forward pass.
        rates: Hz by name, for files that do not state their rate (frame folders, arrays, signals).

        A modality that the recording lacks has gate weight zero. `modalgate embed` gives the same numbers. Raises
        `ValueError`, `OSError` or `av.FFmpegError` if the recording cannot be read.
        """
        files = {"video": Path(path)} | (beside or {})
        pieces = recording_pieces(files, self.spec, self.modalities, self.application, hop, rates)
        return self.embed_pieces(pieces, batch_size)

    def embed_pieces(self, pieces: Iterable[Piece], batch_size: int = BATCH_SIZE) -> Embedding:
        """Features of at least one piece (see `shards.live.pieces`), `batch_size` views per forward pass."""
        batcher = Batcher[tuple[int, int], Embedding](self.encode, batch_size)
        found: list[tuple[tuple[int, int], Embedding]] = []
        held: list[Piece] = []
        for number, piece in enumerate(pieces):
            held.append(replace(piece, views=()))
            for place, view in enumerate(piece.views):
                found += batcher.put((number, place), view)
        found += batcher.rest()
        views: dict[int, list[Embedding]] = {}
        for (number, _), row in sorted(found, key=lambda entry: entry[0]):
            views.setdefault(number, []).append(row)
        return join_embeddings([average_views(views[number], piece) for number, piece in enumerate(held)])

    @torch.no_grad()
    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        """Encodes windows as one batch; returns an `Embedding` of length one per window."""
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


def average_views(views: Sequence[Embedding], piece: Piece) -> Embedding:
    """The mean over the views of a piece: an `Embedding` of length one.

    views: each of length one, all with the same modalities.
    piece: gives the start and end.
    """
    joined = join_embeddings(views)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)

    return Embedding(
        joined.modalities,
        np.array([piece.start]),
        np.array([piece.end]),
        mean(joined.features),
        mean(joined.weights),
        joined.present[:1],
        {name: mean(values) for name, values in joined.by_modality.items()},
    )


def join_embeddings(parts: Sequence[Embedding]) -> Embedding:
    """Concatenates at least one embedding. All have the same modalities."""
    return Embedding(
        parts[0].modalities,
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.present for part in parts]),
        {name: np.concatenate([part.by_modality[name] for part in parts]) for name in parts[0].by_modality},
    )


def load_encoder(folder: Path | str, allow: Collection[str] = ()) -> PretrainedEncoder:
    """Loads the encoder of a bundle, without its classifier if it has one.

    folder: a path, or `hf://owner/name[@revision]` on the hub.
    allow: packages whose classes the bundle may import.

    Raises the errors of `load_bundle`.
    """
    bundle = load_bundle(folder, allow)
    return PretrainedEncoder(bundle.backbone, bundle.spec, bundle.segments, bundle.application)
