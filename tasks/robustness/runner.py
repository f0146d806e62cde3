"""Measurement of a model under every condition: each subset of modalities, and each corruption at each level."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fusion.backbone import Backbone, Encoded
from ...fusion.classifier import Classifier
from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.clips.windows import shifted_starts
from ...shards.modality import modality
from ...shards.stream import ClipStream, Starts
from ...shards.transforms import Preparation
from .conditions import ALL, MISSING, TOGETHER, Condition, Sweep, subsets
from .corruptions import AXES, axes_of, degrade, generator_of, silent
from .encoded_clips import EncodedClips, encode_batch, join_clips

Answer = Callable[[Encoded], tuple[Tensor, Tensor]]


def classifier_answer(classifier: Classifier) -> Answer:
    """Returns a function that gives class probabilities (B, C) and mean gate weights (B, M), averaged over views."""

    def answer(encoded: Encoded) -> tuple[Tensor, Tensor]:
        scored = classifier.score(encoded)
        return classifier.view_probabilities(scored.logits), scored.encoded.weights.mean(dim=1)

    return answer


@torch.no_grad()
def embed_clips(
    backbone: Backbone, spec: ClipSpec, stream: ClipStream, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Returns fused embeddings (n, D) of the stream's clips, averaged over views.

    Modalities that the stream does not deliver are absent.
    """
    backbone, preparation = backbone.to(device).eval(), Preparation(spec).to(device)
    names = stream.request.modalities
    rows = [
        encode_batch(backbone, preparation, batch, names, device).fused(backbone, names, device).embedding
        for batch in stream.evaluate()
    ]
    return torch.cat([row.mean(dim=1).float().cpu() for row in rows]).numpy()


class Sweeper:
    """Measures one model on a stream's clips under all conditions. Only shifts in time need decoding again.

    - `answer`: maps the encoded batch of `backbone` to probabilities and gate weights.
    - `axes`: axes to measure. Empty: all.
    - `progress(count)`: called with the number of newly encoded streams. `total` is their final number.
    """

    def __init__(
        self,
        backbone: Backbone,
        answer: Answer,
        spec: ClipSpec,
        stream: ClipStream,
        *,
        axes: Sequence[str] = (),
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.backbone, self.answer = backbone.to(device).eval(), answer
        self.spec, self.stream, self.seed, self.device = spec, stream, seed, device
        self.progress = progress or (lambda count: None)
        self.preparation = Preparation(spec).to(device)
        self.names = tuple(name for name in backbone.modalities if name in stream.request.modalities)
        self.axes = {name: axes_of(name, axes) for name in self.names}
        self.together = len(self.names) > 1 and TOGETHER in (axes or (TOGETHER,))
        self.found: dict[Condition, list[tuple[Tensor, Tensor, Tensor]]] = {}

    @property
    def total(self) -> int:
        """Number of streams to encode, over all clips."""
        passes = len(self.names) * (1 + self.together * len(AXES[TOGETHER].levels))
        axes = [axis for name in self.names for axis in self.axes[name]]
        passes += sum(len(axis.levels) for axis in axes if axis.name != "swap")
        passes += len(self.names) * any(axis.name == "desync" for axis in axes)
        return passes * len(self.stream.index.samples)

    @torch.no_grad()
    def run(self) -> Sweep:
        """Measures every condition. The stream must have labels."""
        held, labels, keys = [], [], []
        for batch in self.stream.evaluate():
            assert batch.label is not None, "a sweep needs a stream with labels: set its label column"
            clean = self._encode(batch, self.names)
            self._missing(clean)
            self._corrupted(batch, clean)
            held.append(clean)
            labels.append(batch.label)
            keys += batch.key
        clips, label = join_clips(held, self.names), torch.cat(labels)
        self._swapped(clips, label, keys)
        if any(self._measured(name, "desync") for name in self.names):
            self._shifted()
        columns = [[torch.cat(parts) for parts in zip(*rows, strict=True)] for rows in self.found.values()]
        probabilities, weights, valid = (torch.stack(parts).numpy() for parts in zip(*columns, strict=True))
        never = torch.zeros(len(keys), dtype=torch.bool)
        present = [clips.present[n].any(dim=1) if n in self.names else never for n in self.backbone.modalities]
        return Sweep(
            list(self.stream.classes),
            list(self.backbone.modalities),
            list(self.found),
            probabilities,
            weights,
            valid,
            torch.stack(present, dim=1).numpy(),
            label.numpy(),
            keys,
            self.seed,
        )

    def _measured(self, name: str, axis: str) -> bool:
        return any(entry.name == axis for entry in self.axes[name])

    def _encode(self, batch: Batch, names: Iterable[str]) -> EncodedClips:
        names = list(names)
        encoded = encode_batch(self.backbone, self.preparation, batch, names, self.device)
        self.progress(len(batch) * len(names))
        return encoded

    def _add(self, condition: Condition, clips: EncodedClips, kept: Iterable[str], valid: Tensor) -> None:
        """Stores the prediction for `clips` with only the `kept` modalities present."""
        probabilities, weights = self.answer(clips.fused(self.backbone, kept, self.device))
        self.found.setdefault(condition, []).append((probabilities.float().cpu(), weights.float().cpu(), valid))

    def _both(self, condition: Condition, clips: EncodedClips, valid: Tensor) -> None:
        """Stores the predictions for all modalities, and for the corrupted one alone."""
        self._add(condition, clips, self.names, valid)
        if len(self.names) > 1:
            self._add(replace(condition, alone=True), clips, [condition.modality], valid)

    def _missing(self, clips: EncodedClips) -> None:
        for kept in subsets(self.names):
            some = torch.stack([clips.present[name].any(dim=1) for name in kept]).any(dim=0)
            self._add(Condition(MISSING, "+".join(kept)), clips, kept, some)

    def _corrupted(self, batch: Batch, clean: EncodedClips) -> None:
        for name in self.names:
            valid = batch.present[name].any(dim=1)
            for axis in self.axes[name]:
                if axis.alter is None:
                    continue
                measured = valid & ~silent(batch.streams[name]) if axis.name == "snr" and valid.any() else valid
                for level in axis.levels:
                    clips = clean.with_parts_of(self._altered(batch, name, axis.name, level), name)
                    self._both(Condition(axis.name, name, level), clips, measured)
        if self.together:
            self._corrupted_together(batch, clean)

    def _corrupted_together(self, batch: Batch, clean: EncodedClips) -> None:
        there = torch.stack([batch.present[name].any(dim=1) for name in self.names])
        for level in AXES[TOGETHER].levels:
            clips = clean
            for name, valid in zip(self.names, there, strict=True):
                clips = clips.with_parts_of(self._altered(batch, name, TOGETHER, level), name)
                # Pictures and signals already have this in their noise curve.
                if modality(name).kind == "audio":
                    self._add(Condition(TOGETHER, name, level, alone=True), clips, [name], valid)
            self._add(Condition(TOGETHER, ALL, level), clips, self.names, there.any(dim=0))

    def _altered(self, batch: Batch, name: str, axis: str, level: float) -> EncodedClips:
        if name not in batch.streams:
            return self._encode(batch, [name])
        stream = degrade(batch, name, axis, level, self.spec, self.seed)
        return self._encode(replace(batch, streams={name: stream}), [name])

    def _swapped(self, clips: EncodedClips, labels: Tensor, keys: Sequence[str]) -> None:
        """Replaces one modality of each clip by that of a random test clip of another class."""
        own = torch.arange(len(keys))
        # Draw from a list sorted by key, so that the order of batches does not matter.
        listed = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
        for name in self.names:
            if not self._measured(name, "swap"):
                continue
            there = clips.present[name].any(dim=1)
            partners = own.clone()
            for row, key in enumerate(keys):
                others = listed[((labels != labels[row]) & there)[listed]]
                if there[row] and len(others):
                    drawn = torch.randint(len(others), (), generator=generator_of(self.seed, key, name, "swap", 1.0))
                    partners[row] = others[drawn]
            for level in AXES["swap"].levels:
                source = clips.rows(partners if level else own)
                self._both(Condition("swap", name, level), clips.with_parts_of(source, name), partners != own)

    def _shifted(self) -> None:
        """Shifts one modality in time against the others, at views with room for the shift."""
        request, samples = self.stream.request, self.stream.index.samples
        levels = AXES["desync"].levels
        windows = [(s.duration, request.covered(s.duration), request.segments) for s in samples]
        placed = [shifted_starts(*window, levels) for window in windows]
        starts = {sample.key: views for sample, (views, _) in zip(samples, placed, strict=True)}
        room = torch.tensor([margin for _, margin in placed])
        base = join_clips(list(self._views(starts, self.names)), self.names)
        there = torch.stack([base.present[name].any(dim=1) for name in self.names])
        for name, mask in zip(self.names, there, strict=True):
            if not self._measured(name, "desync"):
                continue
            for level in levels:
                # A clip with a single modality has nothing to be out of step with.
                fits = (abs(level) <= room + 1e-9) & mask & (there.sum(dim=0) > 1)
                rows, clips = fits.nonzero()[:, 0], base
                if len(rows):
                    moved = {samples[row].key: starts[samples[row].key] + level for row in rows.tolist()}
                    clips = base.with_rows_of(join_clips(list(self._views(moved, [name])), [name]), rows)
                self._both(Condition("desync", name, level), clips, fits)
                self.progress(len(samples) - len(rows))

    def _views(self, starts: Starts, names: Sequence[str]) -> Iterator[EncodedClips]:
        request = replace(self.stream.request, modalities=tuple(names))
        stream = replace(self.stream, index=self.stream.index.keep(starts), request=request)
        for batch in stream.evaluate(starts):
            yield self._encode(batch, names)
