"""Trains a gate on corrupted streams, without labels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ..views.views import ViewFunction, corrupt, take_segments
from .base import PLAIN, TEACHER, PretextTask, mean_of, unit


class GateDenoising(PretextTask):
    """Predicts the clean fused embedding from corrupted streams, and trains the gate to detect the fault (ours).

    In half of the segments of the view `corrupt`, a random subset of the modalities is corrupted or dropped, never
    all, and each equally often. `z~` is the embedding fused from that view, and `g~` are its gate weights divided by
    their sum. `z*` is the embedding of the clean segment from an exponential moving average of the backbone. `s_m` in
    [0, 1] is the severity of modality m, 0 if it is clean.

        L = 2 - 2 cos(predictor(z~), z*) + gate KL(t || g~),   t_m = exp(-sharpness s_m) / sum_n exp(-sharpness s_n)

    over the remaining modalities n. The first term alone (`gate: 0`) hardly trains the gate: the target is gated too,
    so the loss is small if the gate prefers the modality that varies least. The second term trains the gate directly.
    The task draws the severity, so no labels are needed. For clean segments the target is equal weights. Defaults:
    gate 1, sharpness 2, predictor hidden 256. Set `quality: 3` of the fusion (`BackboneSpec.fusion_arguments`): noise
    and contrast of a stream generalise to other corruptions.

    The accuracy is the share of corrupted modalities whose weight is smaller than in the clean segment, relative to
    the remaining modalities. A gate that does not detect corruption reaches one half.

    Shortcuts it guards against: a fixed preference (each modality is corrupted equally often), and features of the
    trained corruptions (blur is not among them and serves as a test). If modalities have no information in common,
    the first term trains the gate only on `present`.
    """

    views: Mapping[str, ViewFunction] = {"corrupt": corrupt}
    teacher = True
    chance = 0.5
    across_clips = False

    def __init__(
        self, modalities: Sequence[str], width: int, gate: float = 1.0, sharpness: float = 2.0, hidden: int = 256
    ) -> None:
        super().__init__()
        self.gate, self.sharpness = gate, sharpness
        self.predictor = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        corrupted, plain = encoded["corrupt"], encoded[PLAIN]
        segments, severity = corrupted.facts["segments"], corrupted.facts["severity"]
        target = take_segments(encoded[TEACHER].embedding, segments).detach()
        left = torch.stack([corrupted.present[name] for name in corrupted.modalities], dim=-1)
        there = left.any(dim=-1)
        predicted = unit(self.predictor(corrupted.embedding))
        distances = 2 - 2 * (predicted * unit(target)).sum(-1)
        divergence = severity_divergence(corrupted.weights, left, severity, self.sharpness)
        denoising = mean_of([distances[there].mean()] if bool(there.any()) else [], predicted)
        outputs = {"loss": denoising + self.gate * divergence, "divergence": divergence.detach()}
        with torch.no_grad():
            altered = (severity > 0) & left
            before = _shares(take_segments(plain.weights, segments) * left)[altered]
            after = _shares(corrupted.weights * left)[altered]
            if len(after):
                outputs["accuracy"] = (after < before).float().mean() + (after == before).float().mean() / 2
        return outputs


def severity_divergence(weights: Tensor, present: Tensor, severity: Tensor, sharpness: float) -> Tensor:
    """Mean of `KL(t || g)` in nats over rows with at least two modalities; zero, with gradient, without such rows.

    weights: (..., M), gate weights; g are the weights divided by their sum.
    present: (..., M) bool.
    severity: (..., M), in [0, 1].
    sharpness: of the target `t = softmax(-sharpness severity)` over the present modalities.
    """
    rows = present.sum(dim=-1) > 1
    logs = (-sharpness * severity.to(weights.dtype)).masked_fill(~present, float("-inf"))
    wanted = logs[rows].log_softmax(dim=-1)
    found = _shares((weights * present)[rows]).clamp_min(1e-12).log()
    terms = torch.where(present[rows], wanted.exp() * (wanted - found), torch.zeros_like(found))
    return mean_of([terms.sum(dim=-1).mean()] if bool(rows.any()) else [], weights)


def _shares(weights: Tensor) -> Tensor:
    """Weights (..., M) divided by their sum."""
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
