"""A gate that learns whom to trust before any label is seen."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..fusion.backbone import Encoded
from .pretext import PLAIN, TEACHER, PretextTask, mean_of, unit
from .views import take_segments


class GateDenoising(PretextTask):
    """The fused embedding of a corrupted segment predicts the clean one's (ours).

    In the view `corrupt` a random subset of modalities is corrupted or dropped, never all, every modality as often.
    `z~`: fused from it; `z*`: fused from the clean segment by the exponential moving average of the backbone.
    `L = 2 - 2 cos(predictor(z~), z*)`. The weights get no target of their own: to move them away from what is
    corrupted is what makes the loss small. Clean segments take the same path. Predictor hidden 256.

    The accuracy is scored on the gate: how often a corrupted modality's share of the weight is smaller than the same
    modality's in the clean segment; a gate that sees no corruption is right half the time.

    Shortcuts it guards against: a static preference, by the evenness of the draw; fingerprints of the corruptions
    trained on, for blur is never among them and is there to be tested with. Where modalities share nothing there is
    nothing to compensate with, and the gate learns only `present`.
    """

    views = (PLAIN, TEACHER, "corrupt")
    chance = 0.5
    across_clips = False

    def __init__(self, modalities: Sequence[str], width: int, hidden: int = 256) -> None:
        super().__init__()
        self.predictor = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        corrupted, plain = encoded["corrupt"], encoded[PLAIN]
        segments = corrupted.facts["segments"]
        target = take_segments(encoded[TEACHER].embedding, segments).detach()
        there = torch.stack(list(corrupted.present.values())).any(dim=0)
        predicted = unit(self.predictor(corrupted.embedding))
        distances = 2 - 2 * (predicted * unit(target)).sum(-1)
        losses = [distances[there].mean()] if bool(there.any()) else []
        outputs = {"loss": mean_of(losses, predicted)}
        with torch.no_grad():
            severity = corrupted.facts["severity"]
            altered = severity > 0
            altered &= torch.stack([corrupted.present[name] for name in corrupted.modalities], dim=-1)
            before = _shares(take_segments(plain.weights, segments))[altered]
            after = _shares(corrupted.weights)[altered]
            if len(after):
                outputs["accuracy"] = (after < before).float().mean() + (after == before).float().mean() / 2
        return outputs


def _shares(weights: Tensor) -> Tensor:
    """Weights (..., M) relative to their sum: an unnormalised gate may trust everything less."""
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
