"""What encoders made of clips, kept in memory: fusions are trained and compared on it without decoding again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...fusion.backbone import Backbone
from ...fusion.mechanisms.quality import measure_quality
from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.errors import DataError
from ...shards.index.whole_file import whole_file
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation
from ..finetuning.supervised_objective import StoredBatch
from ..robustness.conditions import TOGETHER
from ..robustness.corruptions import degrade


@dataclass(frozen=True)
class StoredClips:
    """n clips of V views: `streams` (n, V, 1 + L, D) by modality, the pooled feature before its tokens; `present`
    (n, V); `quality` (n, V, M, Q) in the order of the streams; `start` (n, V) seconds; `label` (n,); `keys`."""

    streams: dict[str, Tensor]
    present: dict[str, Tensor]
    quality: Tensor
    start: Tensor
    label: Tensor
    keys: list[str]

    def rows(self, numbers: Tensor, seed: int = 0) -> StoredBatch:
        """These clips as a batch."""
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
        """The same clips with these modalities alone."""
        places = [list(self.streams).index(name) for name in modalities]
        return replace(
            self,
            streams={name: self.streams[name] for name in modalities},
            present={name: self.present[name] for name in modalities},
            quality=self.quality[:, :, places],
        )

    def without(self, *modalities: str) -> "StoredClips":
        """The same clips with these modalities absent."""
        hidden = {name: torch.zeros_like(self.present[name]) for name in modalities}
        return replace(self, present=self.present | hidden)

    def with_stream_of(self, other: "StoredClips", modality: str) -> "StoredClips":
        """The same clips with one modality's stream and quality taken from `other`."""
        place = list(self.streams).index(modality)
        quality = self.quality.clone()
        quality[:, :, place] = other.quality[:, :, list(other.streams).index(modality)]
        return replace(self, streams=self.streams | {modality: other.streams[modality]}, quality=quality)


@torch.no_grad()
def store_clips(
    experts: Sequence[Mapping[str, Backbone]], spec: ClipSpec, stream: ClipStream, noise: Sequence[float] = (0.0,)
) -> list[list[StoredClips]]:
    """Every clip of the stream's index through encoders, in its uniform views: a list by set of experts and level.

    `experts`: sets of a backbone by modality, each of its own modality; all sets share one decoding. `noise`: levels
    of the axis `noise` on every stored window, as `degrade` adds it, so that all models meet the same.
    """
    preparation = Preparation(spec)
    names = tuple(experts[0])
    parts: list[list[list[StoredClips]]] = [[[] for _ in noise] for _ in experts]
    for batch in stream.evaluate():
        assert batch.label is not None, "stored clips need a stream with labels"
        for column, level in enumerate(noise):
            streams = preparation(_noisy(batch, level, spec) if level else batch)
            quality = measure_quality(names, streams, batch.present)
            for row, encoders in zip(parts, experts, strict=True):
                stored = {n: _encode(encoders[n], n, streams[n], batch.present[n]) for n in names if n in streams}
                row[column].append(StoredClips(stored, batch.present, quality, batch.start, batch.label, batch.key))
    return [[_joined(names, clips) for clips in row] for row in parts]


def _noisy(batch: Batch, level: float, spec: ClipSpec) -> Batch:
    return replace(batch, streams={name: degrade(batch, name, TOGETHER, level, spec) for name in batch.streams})


def _encode(backbone: Backbone, name: str, stream: Tensor, mask: Tensor) -> Tensor:
    """The pooled feature and its tokens (B, K, 1 + L, D), zero where absent."""
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
    )


@dataclass
class StoredStream:
    """Endless shuffled batches of stored clips, a pure function of (seed, batch number), in this process.

    `noisy`: the same clips at levels of noise. In a `share` of the clips one modality's stream and quality, each as
    often, are those of one of them.
    """

    clips: StoredClips
    batch_size: int
    seed: int = 0
    workers: int = 0
    noisy: Sequence[StoredClips] = ()
    share: float = 0.0

    def train(self, start: int = 0) -> Iterator[StoredBatch]:
        """Batches from number `start` on, every clip once an epoch."""
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
    """Writes `path` whole or not at all."""
    tensors = {f"stream {name}": stream for name, stream in clips.streams.items()}
    tensors |= {f"present {name}": mask for name, mask in clips.present.items()}
    tensors |= {"quality": clips.quality, "start": clips.start, "label": clips.label}
    path.parent.mkdir(parents=True, exist_ok=True)
    names = "\n".join(clips.streams)
    facts = {"keys": "\n".join(clips.keys), "names": names}
    with whole_file(path) as partial:
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata=facts)


def load_stored(path: Path) -> StoredClips:
    """Reads what `save_stored` wrote; `DataError` names a damaged file."""
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
        )
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(f"stored features '{path}' are damaged ({error}): delete the file and run again") from error
