"""`Batch`: what the clip stream delivers and every model, loss and metric consumes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Batch:
    """B clips of K segments each.

    - `streams`: tensor by modality. Video (B, K, T, C, H, W) uint8, depth uint16; audio (B, K, N) float in [-1, 1];
      signals (B, K, N, C) float in physical units. RGB may be channels-last in memory: call `.contiguous()` where
      the order matters.
    - `present`: (B, K) bool by modality. Where it is False, the stream holds zeros that carry no information.
    - `key`: the B clip keys.
    - `start`: (B, K) start of each segment in seconds.
    - `label`: (B,) class numbers, or (B, C) of 0 and 1 for multilabel data. None without labels.
    - `valid`: (B,) bool, False for rows that only pad the last batch.
    - `seed`: seed of every on-device draw for this batch. It differs between steps, ranks and runs.
    """

    streams: dict[str, Tensor]
    present: dict[str, Tensor]
    key: list[str]
    start: Tensor
    label: Tensor | None = None
    valid: Tensor = field(default_factory=lambda: torch.ones(0, dtype=torch.bool))
    seed: int = 0

    def __len__(self) -> int:
        return len(self.key)

    def to(self, device: torch.device | str) -> "Batch":
        """Returns the batch with every tensor on `device`."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Returns the batch in page-locked memory, from which a GPU copies while it computes.

        Data loaders call it.
        """
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Returns the batch with every tensor changed."""
        return Batch(
            {name: change(stream) for name, stream in self.streams.items()},
            {name: change(mask) for name, mask in self.present.items()},
            self.key,
            change(self.start),
            None if self.label is None else change(self.label),
            change(self.valid),
            self.seed,
        )


@dataclass
class Clip:
    """One row of a `Batch` before stacking: the same fields without the leading B."""

    streams: dict[str, Tensor]
    present: dict[str, bool]
    key: str
    start: Tensor
    label: int | list[int] | None
    valid: bool = True


def stack(clips: Sequence[Clip], seed: int) -> Batch:
    """Stacks clips with equal K and equal modalities into a batch.

    A modality that a clip lacks becomes zeros of the shape it has in the other clips. A modality that no clip has
    gets no stream.
    """
    names = clips[0].present
    segments = len(clips[0].start)
    streams = {}
    for name in names:
        shape = next((clip.streams[name] for clip in clips if clip.present[name]), None)
        if shape is None:
            continue
        rows = [clip.streams[name] if clip.present[name] else torch.zeros_like(shape) for clip in clips]
        # Stacked in memory order, so that channels-last pictures are copied without a transposition.
        memory = sorted(range(shape.dim()), key=shape.stride, reverse=True)
        stacked = torch.stack([row.permute(memory) for row in rows])
        streams[name] = stacked.permute(0, *(1 + memory.index(axis) for axis in range(shape.dim())))
    present = {
        name: torch.tensor([[clip.present[name]] * segments for clip in clips], dtype=torch.bool) for name in names
    }
    labels = [clip.label for clip in clips]
    return Batch(
        streams,
        present,
        [clip.key for clip in clips],
        torch.stack([clip.start for clip in clips]),
        None if any(label is None for label in labels) else torch.tensor(labels),
        torch.tensor([clip.valid for clip in clips]),
        seed,
    )
