"""Figures logged in training: gate weights and gradient, spread of the embedding, difference of segments."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..fusion.backbone import Encoded
from ..fusion.mechanisms.gates import Fusion

# Interval in batches of measuring gradients, which costs a second pass through the heads.
GRADIENT_EVERY = 10


@torch.no_grad()
def monitors(encoded: Encoded) -> dict[str, Tensor]:
    """Figures of one encoded batch.

    gate/<modality>: mean weight over the rows that have the modality.
    gate/entropy: entropy of the weights relative to that of equal weights, over rows with several modalities.
    fusion/spread: see `gate_spread`.
    embedding/std: standard deviation per dimension of the unit-length fused embedding, mean over dimensions.
        1/sqrt(D) is healthy.
    embedding/rank: effective rank of the fused embedding (Roy & Vetterli 2007; see `effective_rank`).
    embedding/uniformity: `log mean exp(-2 |x - y|^2)` over pairs of rows; lower is better (Wang & Isola 2020).
    embedding/alignment: mean squared distance between the unit features of two modalities of a segment.

    Figures that the batch does not define are missing.
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
    spread = gate_spread(encoded)
    if spread is not None:
        values["fusion/spread"] = spread
    values["embedding/std"] = rows.std(dim=0, correction=0).mean()
    values["embedding/rank"] = effective_rank(rows)
    if len(rows) > 1:
        values["embedding/uniformity"] = uniformity(rows)
    aligned = alignment(encoded)
    if aligned is not None:
        values["embedding/alignment"] = aligned
    return values


def gate_entropy(encoded: Encoded) -> Tensor | None:
    """Mean of `H(shares) / log n` over rows with n > 1 modalities; None without such rows."""
    mask = torch.stack([encoded.present[name] for name in encoded.modalities], dim=-1)
    count = mask.sum(dim=-1)
    weights = (encoded.weights.clamp_min(0) * mask)[count > 1].float()
    if not len(weights):
        return None
    shares = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(dim=-1)
    return (entropy / count[count > 1].to(entropy.dtype).log()).mean()


def effective_rank(rows: Tensor) -> Tensor:
    """`exp(H(s / sum s))` for the singular values s of the centred rows (N, D) (Roy & Vetterli 2007).

    It is D if all directions have the same variance.

    >>> float(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).round(decimals=3))
    2.0
    """
    singular = torch.linalg.svdvals(rows - rows.mean(dim=0))
    shares = singular / singular.sum().clamp_min(1e-12)
    return torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum())


def uniformity(rows: Tensor) -> Tensor:
    """`log mean exp(-2 |x - y|^2)` over pairs of unit rows (N, D) (Wang & Isola 2020)."""
    distances = torch.pdist(rows)
    return torch.logsumexp(-2 * distances.square(), dim=0) - torch.tensor(float(len(distances))).log()


def alignment(encoded: Encoded) -> Tensor | None:
    """Mean squared distance between the unit features of two modalities of a segment; None without such a pair."""
    units = {name: normalize(encoded.features[name].float(), dim=-1) for name in encoded.modalities}
    found = []
    for number, first in enumerate(encoded.modalities):
        for second in encoded.modalities[number + 1 :]:
            both = encoded.present[first] & encoded.present[second]
            found.append((units[first] - units[second]).square().sum(dim=-1)[both])
    distances = torch.cat(found) if found else torch.zeros(0)
    return distances.mean() if len(distances) else None


def gate_spread(encoded: Encoded) -> Tensor | None:
    """Standard deviation of a modality's gate weight over rows, mean over modalities.

    Only rows with all modalities present and none hidden count. None with fewer than two such rows.
    """
    mask = torch.stack([encoded.present[name] for name in encoded.modalities], dim=-1)
    weights = encoded.weights[(mask & (encoded.weights != 0)).all(dim=-1)].float()
    return weights.std(dim=0, correction=0).mean() if len(weights) > 1 else None


def gate_gradient(loss: Tensor, fusion: Fusion, embedding: Tensor) -> Tensor | None:
    """Norm of the gradient of `loss` with respect to the gate's parameters.

    loss: (), the weighted sum of all losses.
    fusion: holds the gate.
    embedding: fused embedding from the same forward pass.

    Exactly 0 if no loss depends on the embedding. None if the fusion has no learned gate, or if the embedding does
    not depend on its parameters, as in a sharded model.
    """
    parameters = [parameter for parameter in fusion.gate_parameters() if parameter.requires_grad]
    if not parameters or not loss.requires_grad:
        return None
    norm = joint_norm(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), loss)
    if float(norm) == 0:
        whole = embedding.sum()
        reached = torch.autograd.grad(whole, parameters, retain_graph=True, allow_unused=True)
        if all(gradient is None for gradient in reached):
            return None
    return norm


def joint_norm(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Norm of all gradients as one vector. Zero without gradients, with the dtype and device of `like`."""
    squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum().sqrt() if squares else like.new_zeros(())


@torch.no_grad()
def segment_difference(streams: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor | None:
    """Difference between segments of a clip divided by the difference between clips; the maximum over modalities.

    streams: (B, K, ...) by modality, as stored.
    present: (B, K) by modality.

    A difference is the mean absolute difference of neighbours. Of video only the middle frame counts. Flow counts
    only if there is neither RGB nor depth, because without motion it is noise, which always differs. None if there is
    nothing to compare.
    """
    pictures = {"rgb", "depth"} & streams.keys()
    found = []
    for name, stream in streams.items():
        mask = present[name]
        if name == "flow" and pictures:
            continue
        values = stream
        if stream.ndim == 6:
            step = max(stream.shape[-1] // 32, 1)
            values = stream[:, :, stream.shape[2] // 2, :, ::step, ::step]
        values = values.float().flatten(2)
        segments = (values[:, 1:] - values[:, :-1]).abs().mean(dim=-1)[mask[:, 1:] & mask[:, :-1]]
        clips = (values[1:] - values[:-1]).abs().mean(dim=-1)[mask[1:] & mask[:-1]]
        if len(segments) and len(clips) and float(clips.mean()) > 0:
            found.append(segments.mean() / clips.mean())
    return torch.stack(found).max() if found else None
