"""Alternation of modalities over one shared head, whose gradient is projected (MLA)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ....fusion.classifier import Classifier
from ....shards.errors import RequestError
from ....ssl.gather import sum_over_ranks
from .aids import AidsConfig


class Alternation(nn.Module):
    """Which modality a step trains, and the projection of the shared head's gradient (MLA, Zhang et al. 2024).

    All modalities share one linear head with weights `W (C, D)`. A step trains one modality: its encoder and the
    head. The gradient G of W is replaced by `G P`. P (D, D) starts as the identity. Before a step on another modality
    than the last step, whose mean feature was h, P becomes

        P - q q^T / (damping + h^T q),  q = P h

    This is recursive least squares: `P = (I + sum h h^T / damping)^-1` over all means h so far. A step then hardly
    changes the scores that W gives to earlier mean features. The bias is not projected.

    P only shrinks. The published code also divides P by its Frobenius norm in each step; here it is not divided.
    AdamW scales the projected gradient per weight, so the projection is exact only with SGD.

    - `head`: the shared head. Its weights get the hook.
    - `modalities`: names, in the order of their turns.
    - `damping`: large values leave the gradient as it is; small ones remove the directions completely.

    The state is part of the checkpoint. On several processes it is that of the joined batch.
    """

    projection: Tensor
    total: Tensor
    count: Tensor
    turn: Tensor

    def __init__(self, head: nn.Linear, modalities: tuple[str, ...], damping: float) -> None:
        super().__init__()
        self.modalities, self.damping = modalities, damping
        wide = torch.float64
        self.register_buffer("projection", torch.eye(head.in_features, dtype=wide))
        # Sum and number of the features of the last step.
        self.register_buffer("total", torch.zeros(head.in_features, dtype=wide))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("turn", torch.tensor(-1))
        head.weight.register_hook(lambda gradient: (gradient.to(wide) @ self.projection).to(gradient.dtype))

    @property
    def name(self) -> str:
        """The modality of the current step."""
        return self.modalities[int(self.turn)]

    @torch.no_grad()
    def begin(self, present: Mapping[str, Tensor]) -> None:
        """Begins a step: the next modality that a clip of the batch has gets its turn.

        - `present` (B, K) by modality.
        """
        last, count = int(self.turn), len(self.modalities)
        order = [(last + ahead) % count for ahead in range(1, count + 1)]
        turn = next((number for number in order if self._somewhere(present, number)), order[0])
        if turn != last and int(self.count):
            mean = self.total / self.count
            direction = self.projection @ mean
            self.projection -= direction.outer(direction) / (self.damping + mean @ direction)
        self.turn.fill_(turn)
        self.total.zero_()
        self.count.zero_()

    @torch.no_grad()
    def see(self, features: Tensor) -> None:
        """Adds features (N, D) of the current step to its mean."""
        rows = features.detach().to(self.total.dtype)
        self.total += sum_over_ranks(rows.sum(dim=0))
        self.count += sum_over_ranks(torch.tensor(len(rows), device=self.count.device))

    def _somewhere(self, present: Mapping[str, Tensor], number: int) -> bool:
        mask = present.get(self.modalities[number])
        here = self.count.new_zeros(()) if mask is None else mask.any().to(self.count)
        return bool(sum_over_ranks(here))


def share_head(classifier: Classifier, aids: AidsConfig) -> Alternation:
    """Gives all modalities of `classifier` the head of the first, and returns their alternation.

    The decision joins the modalities' scores at test time, as in the paper with `entropy`. The head is stored once
    per modality, with equal values, so that a saved classifier is like any other.

    Raises `RequestError` if `check_alternation` does.
    """
    check_alternation(aids, classifier.decision)
    modalities = classifier.backbone.modalities
    shared = classifier.unimodal[modalities[0]]
    assert isinstance(shared, nn.Linear)
    for name in modalities:
        classifier.unimodal[name] = shared
    return Alternation(shared, modalities, aids.alternation)


def check_alternation(aids: AidsConfig, decision: nn.Module | None, key: str = "decision") -> None:
    """Raises `RequestError` if alternation does not go with the other aids, or with the decision.

    - `decision`: joins the scores of the modalities; None if the classifier has a head on the fused embedding.
    - `key`: config key of the decision.
    """
    for name in ("modulation", "pareto", "distillation", "gate_warmup", "rank", "blending"):
        if getattr(aids, name):
            raise RequestError(f"aids.alternation trains one modality per step: set aids.{name} to 0")
    # `nothing` are the scores of a clip without any modality.
    if decision is None or any(name != "nothing" for name, _ in decision.named_parameters()):
        raise RequestError(
            "aids.alternation trains one head for all modalities, joined by a decision without trained weights: set "
            f"{key}=entropy"
        )
