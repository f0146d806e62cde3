"""Encoder features of clips in memory, to train and compare fusion mechanisms without decoding again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...fusion.backbone import Backbone
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.quality import measure_quality
from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.errors import DataError
from ...shards.index.whole_file import whole_file
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation
from ..finetuning.reliability_fitting import Evidence
from ..finetuning.supervised_objective import StoredBatch
from ..finetuning.unseen_evidence import add_noise


@dataclass(frozen=True)
class StoredClips:
    """Stored features of n clips with V views."""

    streams: dict[str, Tensor]
    """Features (n, V, 1 + L, D) by modality: the pooled feature, then its tokens."""
    present: dict[str, Tensor]
    """Whether each view has the modality (n, V), by modality."""
    quality: Tensor
    """Measured quality (n, V, M, Q), modalities in the order of `streams`."""
    start: Tensor
    """Start of each view in seconds (n, V)."""
    label: Tensor
    """Class numbers (n,)."""
    keys: list[str]
    """Clip keys."""
    scores: Tensor | None = None
    """Class logits (n, V, M, C) by experts that have not seen the clip, if it is a training clip of cross-fitting;
    otherwise by the experts of `streams`."""

    def rows(self, numbers: Tensor, seed: int = 0) -> StoredBatch:
        """Returns these clips as a batch."""
        return StoredBatch(
            {name: stream[numbers] for name, stream in self.streams.items()},
            {name: mask[numbers] for name, mask in self.present.items()},
            [self.keys[number] for number in numbers.tolist()],
            self.start[numbers],
            self.label[numbers],
            torch.ones(len(numbers), dtype=torch.bool),
            seed,
            quality=self.quality[numbers],
        )

    def only(self, *modalities: str) -> "StoredClips":
        """Returns the same clips with only these modalities."""
        places = [list(self.streams).index(name) for name in modalities]
        return replace(
            self,
            streams={name: self.streams[name] for name in modalities},
            present={name: self.present[name] for name in modalities},
            quality=self.quality[:, :, places],
            scores=None if self.scores is None else self.scores[:, :, places],
        )

    def evidence(self, groups: Mapping[str, str]) -> Evidence:
        """Returns the scores as evidence for a gate. `groups`: group by clip key.

        Raises `ValueError` for clips that were stored without scores.
        """
        if self.scores is None:
            raise ValueError("these clips were stored without scores: give store_clips experts with heads")
        there = torch.stack([self.present[name] for name in self.streams], dim=-1)
        return Evidence(self.scores, there, self.quality, self.label, [groups[key] for key in self.keys])

    def without(self, *modalities: str) -> "StoredClips":
        """Returns the same clips with these modalities absent."""
        hidden = {name: torch.zeros_like(self.present[name]) for name in modalities}
        return replace(self, present=self.present | hidden)

    def with_stream_of(self, other: "StoredClips", modality: str) -> "StoredClips":
        """Returns the same clips with stream and quality of one modality taken from `other`."""
        place = list(self.streams).index(modality)
        quality = self.quality.clone()
        quality[:, :, place] = other.quality[:, :, list(other.streams).index(modality)]
        scores = self.scores
        if scores is not None and other.scores is not None:
            scores = scores.clone()
            scores[:, :, place] = other.scores[:, :, list(other.streams).index(modality)]
        streams = self.streams | {modality: other.streams[modality]}
        return replace(self, streams=streams, quality=quality, scores=scores)


@dataclass(frozen=True)
class Experts:
    """The experts of all modalities, trained with one seed on one fold."""

    whole: Mapping[str, Classifier]
    """By modality, trained on all training clips."""
    parts: Sequence[Mapping[str, Classifier]] = ()
    """By modality, each without the clips of one fold of the cross-fitting."""
    fold_of: Mapping[str, int] = field(default_factory=dict)
    """Fold of each training clip by key."""

    def scores(self, name: str, keys: Sequence[str], stream: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        """Returns class logits (B, K, C) of modality `name` by experts that have not seen the clip.

        They are zero where the modality is absent.

        - `stream` (B, K, ...), `mask` (B, K): prepared segments and presence.
        - `pooled` (B, K, D): features of the segments by the expert `whole`.
        """
        logits = _logits(self.whole[name], pooled)
        fold = torch.tensor([self.fold_of.get(key, -1) for key in keys])
        for number, part in enumerate(self.parts):
            rows = mask & (fold == number)[:, None]
            if bool(rows.any()):
                encoder = part[name].eval().backbone.encoders[name]
                logits[rows] = _logits(part[name], encoder(stream[rows]))
        return torch.where(mask[..., None], logits, torch.zeros_like(logits))


def _logits(expert: Classifier, pooled: Tensor) -> Tensor:
    """Class logits (..., C) of encoder features (..., D) of an expert of one modality."""
    expert.eval()
    (name,) = expert.backbone.modalities
    return expert.head(expert.backbone.projections[name](pooled))


@torch.no_grad()
def store_clips(
    experts: Sequence[Experts], spec: ClipSpec, stream: ClipStream, noise: Sequence[float] = (0.0,)
) -> list[list[StoredClips]]:
    """Encodes every clip of the stream's index in uniform views.

    Returns the stored clips by set of experts and noise level.

    - `experts`: all sets share one decoding pass.
    - `noise`: levels of the axis `noise`, added to every window by `degrade`. All models get the same noise.
    """
    preparation = Preparation(spec)
    names = tuple(experts[0].whole)
    parts: list[list[list[StoredClips]]] = [[[] for _ in noise] for _ in experts]
    for batch in stream.evaluate():
        assert batch.label is not None, "stored clips need a stream with labels: set its label column"
        for column, level in enumerate(noise):
            streams = preparation(add_noise(batch, level, spec))
            quality = measure_quality(names, streams, batch.present)
            for row, trained in zip(parts, experts, strict=True):
                row[column].append(_stored(batch, streams, quality, trained, batch.label))
    return [[_joined(names, clips) for clips in row] for row in parts]


def _stored(
    batch: Batch, streams: Mapping[str, Tensor], quality: Tensor, experts: Experts, label: Tensor
) -> StoredClips:
    stored, scores = {}, []
    for name, expert in experts.whole.items():
        mask, classes = batch.present[name], len(expert.classes)
        if name not in streams:
            scores.append(torch.zeros(*mask.shape, classes))
            continue
        stored[name] = _encode(expert.backbone, name, streams[name], mask)
        scores.append(experts.scores(name, batch.key, streams[name], mask, stored[name][:, :, 0]))
    return StoredClips(stored, batch.present, quality, batch.start, label, batch.key, torch.stack(scores, dim=2))


def _encode(backbone: Backbone, name: str, stream: Tensor, mask: Tensor) -> Tensor:
    """Returns the pooled feature and its tokens (B, K, 1 + L, D), zero where absent."""
    pooled, tokens = backbone.eval().encoders[name].with_tokens(stream[mask])  # pyright: ignore[reportCallIssue]
    rows = torch.cat([pooled.unsqueeze(1), tokens], dim=1)
    return rows.new_zeros(*mask.shape, *rows.shape[1:]).index_put((mask,), rows)


def _joined(names: tuple[str, ...], parts: list[StoredClips]) -> StoredClips:
    streams, present = {}, {}
    for name in names:
        like = next(part.streams[name] for part in parts if name in part.streams)
        rows = [
            part.streams[name] if name in part.streams else like.new_zeros(*part.present[name].shape, *like.shape[2:])
            for part in parts
        ]
        streams[name] = torch.cat(rows)
        present[name] = torch.cat([part.present[name] for part in parts])
    return StoredClips(
        streams,
        present,
        torch.cat([part.quality for part in parts]),
        torch.cat([part.start for part in parts]),
        torch.cat([part.label for part in parts]),
        [key for part in parts for key in part.keys],
        torch.cat([part.scores for part in parts if part.scores is not None]),
    )


@dataclass
class StoredStream:
    """Endless shuffled batches of stored clips. A batch depends only on the seed and its number."""

    clips: StoredClips
    batch_size: int
    seed: int = 0
    workers: int = 0
    noisy: Sequence[StoredClips] = ()
    """The same clips at several noise levels."""
    share: float = 0.0
    """Share of clips in which one random modality is replaced by a random noise level of `noisy`."""

    def train(self, start: int = 0) -> Iterator[StoredBatch]:
        """Yields batches from number `start` on.

        Each epoch shows every clip once, except for an incomplete last batch.
        """
        count = len(self.clips.keys)
        per_epoch = max(count // self.batch_size, 1)
        number = start
        while True:
            epoch, place = divmod(number, per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(count)
            rows = torch.from_numpy(order[place * self.batch_size : (place + 1) * self.batch_size])
            yield self._with_noise(self.clips.rows(rows, seed=number), rows)
            number += 1

    def _with_noise(self, batch: StoredBatch, rows: Tensor) -> StoredBatch:
        if not self.noisy or not self.share:
            return batch
        generator = np.random.default_rng([self.seed, batch.seed, 1])
        chosen = torch.from_numpy(generator.random(len(rows)) < self.share)
        level = torch.from_numpy(generator.integers(len(self.noisy), size=len(rows)))
        place = torch.from_numpy(generator.integers(len(batch.streams), size=len(rows)))
        assert batch.quality is not None
        for number, clips in enumerate(self.noisy):
            for column, name in enumerate(batch.streams):
                mask = chosen & (level == number) & (place == column)
                batch.streams[name][mask] = clips.streams[name][rows[mask]]
                batch.quality[mask, :, column] = clips.quality[rows[mask], :, column]
        return batch


def save_stored(clips: StoredClips, path: Path) -> None:
    """Writes `path` atomically."""
    tensors = {f"stream {name}": stream for name, stream in clips.streams.items()}
    tensors |= {f"present {name}": mask for name, mask in clips.present.items()}
    tensors |= {"quality": clips.quality, "start": clips.start, "label": clips.label}
    tensors |= {} if clips.scores is None else {"scores": clips.scores}
    path.parent.mkdir(parents=True, exist_ok=True)
    names = "\n".join(clips.streams)
    facts = {"keys": "\n".join(clips.keys), "names": names}
    with whole_file(path) as partial:
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata=facts)


def load_stored(path: Path) -> StoredClips:
    """Reads clips written by `save_stored`. Raises `DataError` if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
        tensors = load_file(path)
        names = facts["names"].split("\n")
        return StoredClips(
            {name: tensors[f"stream {name}"] for name in names},
            {name: tensors[f"present {name}"] for name in names},
            tensors["quality"],
            tensors["start"],
            tensors["label"],
            facts["keys"].split("\n"),
            tensors.get("scores"),
        )
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(f"stored features '{path}' are damaged ({error}): delete the file and rerun") from error
