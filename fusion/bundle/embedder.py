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

# Windows per batch. Small, because short recordings have few.
BATCH_SIZE = 8


@dataclass(frozen=True)
class Embedding:
    """Features of n pieces of one recording, each the mean over the views of the piece.

    `features` (n, D): the fused embedding; `weights` (n, M): gate weights in the order of `modalities`; `present`
    (n, M): which of them each piece has; `start`, `end` (n,): seconds; `by_modality`: (n, D) of each modality alone,
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
    """A trained backbone with its preparation. `embed` takes files; `backbone` takes prepared streams or a `Batch`.

    backbone: set to evaluation mode.
    spec: how segments are prepared, as in training.
    segments: views per clip in training.
    application: how recordings are cut into pieces.
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
        """The device of the model."""
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
        hop: seconds between pieces; by default as in `Application`. A recording as short as the training clips gives
            one row; a longer one a row for each piece.
        beside: files of further modalities by name, such as `{"depth": Path("depth.mkv")}`.
        batch_size: views computed at a time.
        rates: Hz of files that do not state their own (frame folders, arrays, signals).

        Modalities that the recording lacks are absent, with gate weight zero. `modalgate embed` gives the same
        numbers. Raises `ValueError`, `OSError` or `av.FFmpegError` if the recording cannot be read.
        """
        files = {"video": Path(path)} | (beside or {})
        pieces = recording_pieces(files, self.spec, self.modalities, self.application, hop, rates)
        return self.embed_pieces(pieces, batch_size)

    def embed_pieces(self, pieces: Iterable[Piece], batch_size: int = BATCH_SIZE) -> Embedding:
        """Features of pieces (`shards.live.pieces`), at least one."""
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
        """Encodes one batch of windows; returns an `Embedding` of length one for each."""
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
    """One row of a piece: the mean over its views, each of length one and with the same modalities."""
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
    """Concatenates embeddings of the same modalities, at least one."""
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
    """The encoder of a bundle, without its classifier if it has one.

    folder: a path, or `hf://owner/name[@revision]` of the hub.
    allow: packages whose classes the bundle may import.

    Raises what `load_bundle` raises.
    """
    bundle = load_bundle(folder, allow)
    return PretrainedEncoder(bundle.backbone, bundle.spec, bundle.segments, bundle.application)
