"""`embed`: features of recordings or clips in one file, decoded in parallel; resumable."""

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ...fusion.bundle.bundle import Bundle
from ...fusion.bundle.embedder import (
    BATCH_SIZE,
    Embedding,
    PretrainedEncoder,
    average_views,
    join_embeddings,
    load_encoder,
)
from ...shards.clips.piece import Piece
from ...shards.errors import RequestError
from ...shards.live.inputs import Item, find_material
from ...shards.live.readers import Ended, relay
from ...shards.live.window_batches import Batcher
from ...shards.media.pack_settings import PackSettings, difference
from ...shards.packing.rejected import Rejected, judge_rejected, list_rejected, printable
from ...shards.packing.sources import Source
from ...shards.packing.spool import ENCODERS
from ...tasks.features.feature_files import FeatureRows, check_form, read_about, write_features
from ...tasks.features.feature_parts import FeatureParts, open_parts, remove_parts
from ..runs.bundles import find_bundle
from ..runs.progress import track
from ..training.device import leave_cores_to
from .building import check_shards_fit

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Embedded:
    """The written file: numbers of `recordings` (or clips), of `windows` (pieces) and of `rejected` recordings;
    `present`: share of pieces that have each modality; `weights`: mean gate weight of each.
    """

    out: Path
    recordings: int
    windows: int
    rejected: int
    width: int
    present: dict[str, float]
    weights: dict[str, float]


def embed(
    encoder: Path,
    source: str,
    out: Path,
    *,
    hop: float | None = None,
    by_modality: bool = False,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    max_rejected: float = 0.05,
    rates: dict[str, float] | None = None,
    overwrite: bool = False,
    max_seconds: float = PackSettings.max_seconds,
) -> Embedded:
    """Writes features of everything in `source` (see `find_material`) to `out`, `.parquet` or `.npz`.

    Finished recordings are kept beside `out` until all are done: after an interruption the same call resumes and
    writes the same bytes. If `out` exists, from the same request, nothing is done; other content is replaced only
    with `overwrite`. Unreadable recordings are listed in `rejected_list(out)`. `workers`: decoding processes;
    default: all cores but one. `max_seconds`: a longer recording is unreadable. Raises `DataError` if more than the
    share `max_rejected` is unreadable; `RequestError` for a wrong suffix, source or encoder, and if `out` holds
    something else.
    """
    check_form(out)
    model = load_encoder(find_bundle(encoder)).to("cuda" if torch.cuda.is_available() else "cpu")
    application = model.application
    step = application.step(hop)
    material = find_material(source, rates)
    if material.index is not None:
        check_shards_fit(Bundle(model.backbone, model.spec, model.segments), material.index)
    request = {
        "format_version": FORMAT_VERSION,
        "encoder": digest(model),
        "modalities": list(model.modalities),
        "seconds": model.spec.seconds,
        "views": application.views,
        "piece": application.piece,
        "hop": step,
        # A given hop cuts pieces from short recordings too.
        "whole": application.whole if hop is None else 0.0,
        "batch_size": batch_size,
        "by_modality": by_modality,
        "device": model.device.type,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *ENCODERS)},
    }
    about = request | {"source": material.fingerprint}
    if out.exists() and (found := _finished(out, about, overwrite)) is not None:
        return found
    out.parent.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(cores - 1, 1) if workers is None else workers
    leave_cores_to(workers)
    try:
        with open_parts(out, request, model.modalities) as parts:
            work = _Work(model, parts, material.items, by_modality, batch_size)
            work.run(material.cutter(model.spec, model.modalities, application, hop, max_seconds), workers)
            rejected = [work.rejected[number] for number in sorted(work.rejected)]
            listed = rejected_list(out)
            list_rejected(listed, rejected)
            judge_rejected(rejected, len(material.items), max_rejected, listed, "embedded")
            kept = [item for number, item in enumerate(material.items) if number not in work.rejected]
            embedded = _summary(out, parts, kept, len(rejected), model)
            facts = {name: value for name, value in vars(embedded).items() if name != "out"}
            windows = [len(parts.read(item)) for item in kept]
            write_features(
                FeatureRows(
                    [item.key for item in kept],
                    windows,
                    lambda number: parts.read(kept[number]),
                    model.modalities,
                    model.width,
                    by_modality,
                    about | facts,
                ),
                out,
            )
    except OSError as error:
        raise RequestError(
            f"cannot write '{out}' ({error.strerror or error}): fix that and rerun the same command to resume"
        ) from error
    remove_parts(out)
    return embedded


def rejected_list(out: Path) -> Path:
    """The file that lists unreadable recordings."""
    return out.with_name(f"{out.name}.rejected.jsonl")


def digest(encoder: PretrainedEncoder) -> str:
    """A digest of everything that determines the features: weights, spec and preparation."""
    found = hashlib.sha256(repr((encoder.backbone.spec, encoder.spec)).encode())
    for name, value in encoder.backbone.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]


@dataclass
class _Pending:
    """The pieces of a recording so far, without their streams, and the finished rows of their views."""

    pieces: list[tuple[Piece, int]] = field(default_factory=list)
    rows: dict[tuple[int, int], Embedding] = field(default_factory=dict)
    ended: bool = False

    @property
    def done(self) -> bool:
        return self.ended and len(self.rows) == sum(views for _, views in self.pieces)

    def embedding(self) -> Embedding:
        """All rows in order."""
        return join_embeddings(
            [
                average_views([self.rows[number, place] for place in range(views)], piece)
                for number, (piece, views) in enumerate(self.pieces)
            ]
        )


class _Work:
    """Runs pieces of many recordings through the model; `rejected`: by position."""

    def __init__(
        self, model: PretrainedEncoder, parts: FeatureParts, items: list[Item], by_modality: bool, batch_size: int
    ) -> None:
        self.model, self.parts, self.items, self.by_modality = model, parts, items, by_modality
        self.batcher = Batcher[tuple[int, int, int], Embedding](model.encode, batch_size)
        self.pending: dict[int, _Pending] = {}
        self.rejected = {
            number: Rejected(_name(item), item.problem) for number, item in enumerate(items) if item.problem
        }
        self.windows = 0

    def run(self, cut: Any, workers: int) -> None:
        """Embeds recordings that have no part yet; progress counts recordings."""
        numbers = [
            number for number, item in enumerate(self.items) if not item.problem and not self.parts.holds(item)
        ]
        done = len(self.items) - len(numbers)
        with track(len(self.items), "embed", start=done) as self.advance:
            for place, piece in relay(cut, [self.items[number] for number in numbers], workers):
                number = numbers[place]
                pending = self.pending.setdefault(number, _Pending())
                if not isinstance(piece, Ended):
                    place = len(pending.pieces)
                    pending.pieces.append((replace(piece, views=()), len(piece.views)))
                    self.windows += 1
                    for view, window in enumerate(piece.views):
                        self._take(self.batcher.put((number, place, view), window))
                elif piece.reason:
                    self.rejected[number] = Rejected(_name(self.items[number]), piece.reason)
                    del self.pending[number]
                    self._tell(1)
                else:
                    pending.ended = True
                    self._close(number)
            self._take(self.batcher.rest())

    def _take(self, found: list[tuple[tuple[int, int, int], Embedding]]) -> None:
        for (number, place, view), row in found:
            if number in self.pending:  # not from a recording that has been rejected since
                self.pending[number].rows[place, view] = row
                self._close(number)
        if found:
            self._tell(0)

    def _close(self, number: int) -> None:
        pending = self.pending[number]
        if pending.done:
            found = pending.embedding()
            self.parts.save(self.items[number], found if self.by_modality else replace(found, by_modality={}))
            del self.pending[number]
            self._tell(1)

    def _tell(self, count: int) -> None:
        told = {"rejected": len(self.rejected)} if self.rejected else {}
        self.advance(count, windows=self.windows, **told)


def _name(item: Item) -> str:
    return printable(item.held.path) if isinstance(item.held, Source) else item.key


def _summary(out: Path, parts: FeatureParts, items: list[Item], rejected: int, model: PretrainedEncoder) -> Embedded:
    windows, names = 0, model.modalities
    present, weights = [0.0] * len(names), [0.0] * len(names)
    for item in items:
        found = parts.read(item)
        windows += len(found)
        present = [total + float(column.sum()) for total, column in zip(present, found.present.T, strict=True)]
        weights = [total + float(column.sum()) for total, column in zip(weights, found.weights.T, strict=True)]
    shares, means = ([total / max(windows, 1) for total in totals] for totals in (present, weights))
    return Embedded(
        out,
        len(items),
        windows,
        rejected,
        model.width,
        dict(zip(names, shares, strict=True)),
        dict(zip(names, means, strict=True)),
    )


def _finished(out: Path, about: Mapping[str, Any], overwrite: bool) -> Embedded | None:
    """The figures of an earlier run of the same request; None if `out` is to be replaced."""
    found = read_about(out)
    named = difference({name: found.get(name) for name in about}, dict(about)) if found is not None else "nothing"
    if found is None or named:
        if overwrite or not out.stat().st_size:
            return None
        what = "exists and holds no features" if found is None else f"already holds features with {named}"
        raise RequestError(f"'{out}' {what}: remove it, give another OUT, or add --overwrite")
    remove_parts(out)
    kept = ("recordings", "windows", "rejected", "width", "present", "weights")
    return Embedded(out, **{name: found[name] for name in kept})
