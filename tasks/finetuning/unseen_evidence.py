"""Evidence for a gate: scores of training clips by classifiers that have not seen them, clean and corrupted."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from ...fusion.backbone import Encoded
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.quality import measure_quality
from ...shards.clip_spec import ClipSpec
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation
from ..features.across_processes import share_batches
from ..robustness.conditions import TOGETHER
from ..robustness.corruptions import degrade_all
from .reliability_fitting import Evidence, join_evidence

# Deviations of the noise that one stream of a clip may have, relative to its training data.
LEVELS = (0.5, 1.0, 2.0)


def unseen_evidence(
    parts: Sequence[Classifier],
    fold_of: Mapping[str, int],
    spec: ClipSpec,
    stream: ClipStream,
    groups: Mapping[str, str],
    levels: Sequence[float] = LEVELS,
    device: torch.device | str = "cpu",
) -> list[Evidence]:
    """Returns the evidence of the clips of `stream`: clean, then at each level of noise on all streams.

    - `parts`: classifiers with a head per modality. The clips of fold k are scored by `parts[k]`.
    - `fold_of`: fold of each clip by key.
    - `groups`: group of each clip by key.
    - `levels`: of the axis `noise`.

    Each clip is decoded once. Undecodable clips give no evidence. Several processes share the batches, and each
    returns all evidence.
    """
    models = [part.to(device).eval() for part in parts]
    found = share_batches(stream, lambda part: _scored(models, fold_of, spec, part, groups, (0.0, *levels), device))
    return [join_evidence([row[number] for row in found]) for number in range(1 + len(levels))]


@torch.no_grad()
def _scored(
    parts: Sequence[Classifier],
    fold_of: Mapping[str, int],
    spec: ClipSpec,
    stream: ClipStream,
    groups: Mapping[str, str],
    levels: Sequence[float],
    device: torch.device | str,
) -> Iterator[list[Evidence]]:
    preparation = Preparation(spec).to(device)
    names = parts[0].backbone.modalities
    for batch in stream.evaluate(skip_damaged=True):
        assert batch.label is not None, "evidence needs a stream with labels: set its label column"
        fold = torch.tensor([fold_of[key] for key in batch.key])
        row = []
        for level in levels:
            given = degrade_all(batch, TOGETHER, level, spec)
            given = given.to(device)
            streams = preparation(given)
            never = torch.zeros_like(given.start, dtype=torch.bool)
            present = {name: given.present.get(name, never) for name in names}
            quality = measure_quality(names, streams, present)
            shape = (*given.start.shape, len(names), len(parts[0].classes))
            logits = torch.zeros(shape, device=device)
            for number, part in enumerate(parts):
                rows = (fold == number).to(device)
                if not bool(rows.any()):
                    continue
                encoded = part.backbone(
                    {name: stream[rows] for name, stream in streams.items()},
                    {name: mask[rows] for name, mask in present.items()},
                    given.start[rows],
                    quality[rows],
                )
                logits[rows] = _unimodal(part, encoded)
            there = torch.stack([present[name] for name in names], dim=-1)
            kept = batch.valid if len(batch.valid) else torch.ones(len(batch), dtype=torch.bool)
            row.append(
                Evidence(
                    torch.where(there[..., None], logits, torch.zeros_like(logits)).cpu()[kept],
                    there.cpu()[kept],
                    quality.cpu()[kept],
                    batch.label.cpu()[kept],
                    [groups[key] for key, keep in zip(batch.key, kept.tolist(), strict=True) if keep],
                )
            )
        yield row


def _unimodal(classifier: Classifier, encoded: Encoded) -> torch.Tensor:
    """Logits (B, K, M, C) of the heads per modality."""
    heads = classifier.unimodal
    return torch.stack([heads[name](encoded.features[name]) for name in encoded.modalities], dim=2).float()
