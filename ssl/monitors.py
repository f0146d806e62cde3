"""What is watched while training: gates, the spread of the embedding, and signs that either has collapsed."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..fusion.backbone import Encoded

# A gate that gives nearly all to one modality, in nearly every sample.
GATE_COLLAPSED, ENTROPY_COLLAPSED = 0.95, 0.05
# Share of the deviation that unit vectors spread over the whole sphere would have.
SPREAD_COLLAPSED = 0.1


@torch.no_grad()
def monitors(encoded: Encoded) -> dict[str, Tensor]:
    """`gate/<modality>`: mean weight over the rows that have it; `gate/entropy`: of the weights as shares, relative
    to that of equal ones, over rows with several modalities; `embedding/std`: mean deviation of the unit-length fused
    embedding per dimension, healthy near 1/sqrt(D); `embedding/rank`: its effective rank, the exponential of the
    entropy of its normalised singular values (Roy & Vetterli 2007); `embedding/uniformity`:
    `log mean exp(-2 |x - y|^2)` over pairs of rows, lower is better (Wang & Isola 2020); `embedding/alignment`: mean
    squared distance of a segment's unit features of two modalities.
    """
    values: dict[str, Tensor] = {}
    for number, name in enumerate(encoded.modalities):
        weights = encoded.weights[..., number][encoded.present[name]]
        if len(weights):
            values[f"gate/{name}"] = weights.mean()
    entropy = gate_entropy(encoded)
    if entropy is not None:
        values["gate/entropy"] = entropy
    rows = normalize(encoded.embedding.float().flatten(0, 1), dim=-1)
    values["embedding/std"] = rows.std(dim=0, correction=0).mean()
    values["embedding/rank"] = effective_rank(rows)
    if len(rows) > 1:
        values["embedding/uniformity"] = uniformity(rows)
    aligned = alignment(encoded)
    if aligned is not None:
        values["embedding/alignment"] = aligned
    return values


def gate_entropy(encoded: Encoded) -> Tensor | None:
    """Mean of `H(shares) / log n` over rows with n > 1 modalities; none where there is no such row."""
    mask = torch.stack([encoded.present[name] for name in encoded.modalities], dim=-1)
    count = mask.sum(dim=-1)
    weights = (encoded.weights.clamp_min(0) * mask)[count > 1].float()
    if not len(weights):
        return None
    shares = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(dim=-1)
    return (entropy / count[count > 1].to(entropy.dtype).log()).mean()


def effective_rank(rows: Tensor) -> Tensor:
    """`exp(H(s / sum s))` of the singular values s of centred rows (N, D): D where all directions are used alike."""
    singular = torch.linalg.svdvals(rows - rows.mean(dim=0))
    shares = singular / singular.sum().clamp_min(1e-12)
    return torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum())


def uniformity(rows: Tensor) -> Tensor:
    """`log mean exp(-2 |x - y|^2)` over pairs of unit rows (N, D)."""
    distances = torch.pdist(rows)
    return torch.logsumexp(-2 * distances.square(), dim=0) - torch.tensor(float(len(distances))).log()


def alignment(encoded: Encoded) -> Tensor | None:
    """Mean squared distance of unit features of every two modalities in the same segment; none without a pair."""
    units = {name: normalize(encoded.features[name].float(), dim=-1) for name in encoded.modalities}
    found = []
    for number, first in enumerate(encoded.modalities):
        for second in encoded.modalities[number + 1 :]:
            both = encoded.present[first] & encoded.present[second]
            found.append((units[first] - units[second]).square().sum(dim=-1)[both])
    distances = torch.cat(found) if found else torch.zeros(0)
    return distances.mean() if len(distances) else None


def collapse_warnings(means: Mapping[str, float], width: int) -> list[str]:
    """A line with its remedy for each thing that has collapsed, of `monitors` averaged over a while.

    A gate: one modality's mean weight is above .95 and the entropy below .05 of its largest. An embedding of `width`:
    its deviation is below a tenth of 1/sqrt(width).
    """
    lines = []
    gates = {
        key.removeprefix("gate/"): value
        for key, value in means.items()
        if key.startswith("gate/") and key not in ("gate/loss", "gate/entropy")
    }
    if len(gates) > 1 and means.get("gate/entropy", 1.0) < ENTROPY_COLLAPSED:
        name = max(gates, key=lambda key: gates[key])
        if gates[name] > GATE_COLLAPSED:
            lines.append(
                f"the gate has collapsed onto {name} (mean weight {gates[name]:.2f}): raise model.modality_dropout "
                "or model.fusion_arguments.balance, give the modalities heads of their own (unimodal_weight), or "
                "hold the gate for a while (aids.gate_warmup)"
            )
    spread = means.get("embedding/std", 1.0) * width**0.5
    if spread < SPREAD_COLLAPSED:
        lines.append(
            f"the embedding has collapsed (its deviation is {spread:.0%} of a healthy one): add or raise a task that "
            "pushes clips apart (cross_modal, vicreg), or lower train.learning_rate"
        )
    return lines
