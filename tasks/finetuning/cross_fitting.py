"""Cross-fitting: experts for every clip that have not seen it, trained beside the expert that is used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.index.folds import grouped_folds
from ...shards.transforms import AugmentConfig, Preparation
from ...ssl.verdicts import Means
from .supervised_objective import SupervisedObjective

DEFAULT_FOLDS = 5


def cross_fit_folds(
    keys: Sequence[str], labels: Sequence[str], groups: Sequence[str], folds: int = DEFAULT_FOLDS, seed: int = 0
) -> dict[str, int]:
    """Returns the fold of each clip by key. A group is not divided.

    - `keys`, `labels`, `groups`: of the training clips.
    - `folds`: wanted number of folds. With fewer groups there are as many folds as groups; with one group there are
      none, and the result is empty.
    """
    most = min(folds, len(set(groups)), max(labels.count(label) for label in set(labels)))
    if most < 2:
        return {}
    numbers = grouped_folds(labels, groups, most, seed)
    return dict(zip(keys, numbers.tolist(), strict=True))


class CrossFitted(nn.Module):
    """Trains an expert on all clips and, on the same batches, one per fold without the clips of that fold.

    Each clip is decoded, prepared and augmented once for all experts.

    - `whole`: objective on prepared streams of the expert that is used.
    - `parts`: objectives on prepared streams, one per fold.
    - `fold_of`: fold of each clip by key.
    - `spec`, `augment`: preparation of the streams.

    `forward(batch)` returns the values of `whole`, and the mean loss of the other experts as `parts/loss`. Its weight
    is their number, so that each expert gets the gradient it would get alone. A limit on the gradient's norm
    (`clip_norm`) counts all experts together.
    """

    def __init__(
        self,
        whole: SupervisedObjective,
        parts: Sequence[SupervisedObjective],
        fold_of: Mapping[str, int],
        spec: ClipSpec,
        augment: AugmentConfig | None,
    ) -> None:
        super().__init__()
        self.whole, self.parts, self.fold_of = whole, nn.ModuleList(parts), fold_of
        self.preparation, self.augment = Preparation(spec), augment
        self.weights = whole.weights | {"parts/loss": float(len(parts))}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        streams = self.preparation(batch, self.augment if self.training else None)
        prepared = replace(batch, streams=streams)
        outputs = self.whole(prepared)
        fold = torch.tensor([self.fold_of[key] for key in batch.key])
        losses = [self._part_loss(part, prepared, fold != number) for number, part in enumerate(self.parts)]
        return outputs | {"parts/loss": torch.stack(losses).mean()}

    def warnings(self, means: Mapping[str, float]) -> list[str]:
        """Returns warnings about the logged `means` of the expert that is used."""
        return self.whole.warnings(means)

    def verdict(self, lines: Sequence[Means]) -> list[str]:
        """Returns warnings about all logged `lines` of the expert that is used, at the end of a run."""
        return self.whole.verdict(lines)

    def _part_loss(self, part: nn.Module, batch: Batch, mask: Tensor) -> Tensor:
        if int(mask.sum()) < 2:
            # Batch norm has no statistics of a single clip.
            return torch.stack([parameter.sum() * 0 for parameter in part.parameters()]).sum()
        assert isinstance(part, SupervisedObjective)
        outputs = part(_rows(batch, mask))
        losses = [part.weights.get(name, 1.0) * value for name, value in outputs.items() if name.endswith("/loss")]
        return torch.stack(losses).sum()


def _rows(batch: Batch, mask: Tensor) -> Batch:
    """The clips of a batch where `mask` (B,) is true."""
    return replace(
        batch,
        streams={name: stream[mask] for name, stream in batch.streams.items()},
        present={name: there[mask] for name, there in batch.present.items()},
        key=[key for key, kept in zip(batch.key, mask.tolist(), strict=True) if kept],
        start=batch.start[mask],
        label=None if batch.label is None else batch.label[mask],
        valid=batch.valid[mask] if len(batch.valid) else batch.valid,
    )
