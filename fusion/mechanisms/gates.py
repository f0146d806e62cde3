"""Gated fusion of pooled features: one weight per modality and sample, or the same for all samples."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .quality import QualityScore


@dataclass
class AuxiliarySums:
    """What an auxiliary loss needs of a batch: sums over rows. Sums of several processes add up to those of all rows.

    The mean of the losses of parts of a batch is not the loss of the batch, because the loss is not linear.

    sums: (S,), float.
    rows: (), number of rows that count.
    loss: the loss () of sums (S,) and rows ().
    """

    sums: Tensor
    rows: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]

    def value(self) -> Tensor:
        """The loss (); zero without rows."""
        found = self.loss(self.sums, self.rows.clamp_min(1))
        return torch.where(self.rows > 0, found, torch.zeros_like(found))


@dataclass
class Fused:
    """Output of a fusion.

    embedding: (..., D).
    weights: (..., M), in the order of the modalities.
    aux_loss: (), zero for mechanisms without an auxiliary loss.
    auxiliary: the sums that give `aux_loss`. With None, several processes average their losses.
    """

    embedding: Tensor
    weights: Tensor
    aux_loss: Tensor
    auxiliary: AuxiliarySums | None = None

    def with_auxiliary(self, auxiliary: AuxiliarySums) -> "Fused":
        """The same with an auxiliary loss."""
        return replace(self, aux_loss=auxiliary.value(), auxiliary=auxiliary)


def stack_features(
    features: dict[str, Tensor],
    present: dict[str, Tensor],
    modalities: tuple[str, ...],
    missing: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Stacks modalities: features (..., M, D) and presence (..., M).

    features: (..., D) by modality.
    present: (...) bool by modality.
    modalities: names, in the order of M.
    missing: (M, D), vectors that replace absent features (`absent_features`); default: zeros, for mechanisms that
        do not use absent features.
    """
    mask = torch.stack([present[name] for name in modalities], dim=-1)
    values = torch.stack([features[name] for name in modalities], dim=-2)
    filling = values.new_zeros(()) if missing is None else missing.to(values.dtype)
    return torch.where(mask[..., None], values, filling), mask


def absent_features(modalities: tuple[str, ...], width: int) -> nn.Parameter:
    """Learned vectors (M, D) that replace absent features, for mechanisms whose networks read all modalities.

    Zero is a possible feature, so it cannot mark absence.
    """
    return nn.Parameter(torch.zeros(len(modalities), width))


def presence_shares(mask: Tensor, like: Tensor) -> Tensor:
    """Equal weights (..., M) of the present modalities: they sum to one, or to zero if none is present.

    mask: (..., M) bool, presence.
    like: tensor with the dtype of the result.

    >>> presence_shares(torch.tensor([[True, True, False], [False, False, False]]), torch.zeros(()))
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    return mask.to(like.dtype) / mask.sum(dim=-1, keepdim=True).clamp_min(1)


class Fusion(nn.Module):
    """Base of all mechanisms.

    modalities: names, in the order of the weights.
    width: D.

    `forward(features, present)` takes features and presence (...) bool, both by modality, and returns `Fused`.
    Features are (..., D) at the class attribute `level` `feature`, tokens (..., L, D) at `token`, and class logits
    (..., D) at `decision`. A mechanism with an attribute `quality` above 0 gets a third argument (..., M, quality).
    The parameter `nothing` (D,) is the embedding where no modality is present.
    """

    level = "feature"
    quality = 0

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters that affect only the weights; empty if there are none."""
        return []

    def fuse(self, values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """`sum_m weights_m values_m`, with `nothing` where no modality is present.

        values: (..., M, D).
        weights: (..., M), or (..., M, D) with a weight per channel; their mean over channels is then reported.
        mask: (..., M) bool, presence.
        """
        if weights.dim() > mask.dim():
            return self.finish((weights * values).sum(dim=-2), weights.mean(dim=-1), mask)
        return self.finish((weights[..., None] * values).sum(dim=-2), weights, mask)

    def finish(self, embedding: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """`Fused` of an embedding (..., D), with `nothing` where no modality is present."""
        embedding = torch.where(mask.any(dim=-1, keepdim=True), embedding, self.nothing.to(embedding.dtype))
        return Fused(embedding, weights, embedding.new_zeros(()))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if "missing" not in self._parameters:
            state_dict.pop(f"{prefix}missing", None)  # see `unused_tensors`
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def unused_tensors(model: nn.Module) -> list[str]:
    """Names of tensors that older files may hold and that loading ignores.

    Mechanisms that do not use absent features once had a parameter `missing` (M, D), which got no gradient.
    """
    fusions = ((name, part) for name, part in model.named_modules() if isinstance(part, Fusion))
    own = ((f"{name}." if name else "", part) for name, part in fusions)
    return [f"{prefix}missing" for prefix, part in own if f"{prefix}missing" not in model.state_dict()]


class Gate(Fusion):
    """Base of mechanisms that learn the weights of the modalities.

    quality: number of measures q per modality that only the weights depend on, such as noise or blur. They are the
        third argument of `forward`; `score` is their `QualityScore`.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, quality: int = 0) -> None:
        super().__init__(modalities, width)
        self.quality = quality
        self.score = QualityScore(len(modalities), quality) if quality else None

    def gate_parameters(self) -> list[nn.Parameter]:
        return list(self.score.parameters()) if self.score else []

    def judged(self, logits: Tensor, quality: Tensor | None, mask: Tensor) -> Tensor:
        """Logits (..., M) of the weights plus the score of the quality (..., M, Q), if it is known.

        mask: (..., M) bool, presence.
        """
        return logits if self.score is None or quality is None else logits + self.score(quality, mask)


class StaticFusion(Gate):
    """`w = softmax(theta)` over the present modalities, `z = sum_m w_m h_m`. Starts as the mean.

    Weights sum to one, or to zero where no modality is present. (Published code learns M - 1 free scalars and gives
    the last modality the remainder, which may be negative. Softmax weights are positive.)
    """

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.theta = nn.Parameter(torch.zeros(len(modalities)))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        return self.fuse(values, masked_softmax(self.theta.expand(mask.shape), mask).to(values.dtype), mask)


class SoftmaxGate(Gate):
    """A gating network on the concatenated features, with a softmax over the present modalities.

    `a = W2 relu(W1 [h_1; ...; h_M; present] + b1) + b2 + u(q)`, `g = softmax(a / T)`, `z = sum_m g_m h_m`, with
    `a_m = -inf` where m is absent. Weights sum to one, or to zero where no modality is present. The last layer starts
    at zero, so training starts from the mean. Jacobs, Jordan et al. 1991; the form that 2512.04943 is reported to
    use.

    The gradient of `h_m` is scaled by `g_m`, so one modality may end up with all the weight. The auxiliary loss
    `log M - H(mean of g)`, over the rows of a batch with all modalities, makes the gate use every modality in some
    rows. It does not constrain single rows.

    hidden: hidden width of the gating network.
    temperature: T; lower values give sharper weights.
    balance: factor of the auxiliary loss.
    dropout: probability of dropping a hidden channel.
    scale: multiplies the weights by `s = 2 sigmoid(...)`, one more output of the network. They then sum to s in
        (0, 2), so that all can be low.
    quality: number of measures q per modality, as in `Gate`; `u` is a `QualityScore`.
    """

    def __init__(
        self,
        modalities: tuple[str, ...],
        width: int,
        hidden: int = 32,
        temperature: float = 1.0,
        balance: float = 0.01,
        dropout: float = 0.0,
        scale: bool = False,
        quality: int = 0,
    ) -> None:
        super().__init__(modalities, width, quality)
        self.missing = absent_features(modalities, width)
        self.temperature, self.balance, self.scale = temperature, balance, scale
        inputs = len(modalities) * (width + 1)
        self.network = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(modalities) + scale)
        )
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def gate_parameters(self) -> list[nn.Parameter]:
        return [*self.network.parameters(), *super().gate_parameters()]

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        shares, weights = self.weigh(values, mask, quality)
        return self.fuse(values, weights, mask).with_auxiliary(gate_balance(shares, mask, self.balance))

    def weigh(self, values: Tensor, mask: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        """Shares (..., M), which sum to one, and weights (..., M), which are the shares times s.

        values: (..., M, D), features.
        mask: (..., M) bool, presence.
        quality: (..., M, Q), or None if it is unknown.
        """
        outputs = self.network(torch.cat([values.flatten(-2), mask.to(values.dtype)], dim=-1))
        logits = self.judged(outputs[..., : len(self.modalities)], quality, mask)
        shares = masked_softmax(logits / self.temperature, mask)
        return shares, shares * 2 * outputs[..., -1:].sigmoid() if self.scale else shares


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the entries of the last dimension where `mask` is true; zero elsewhere.

    >>> masked_softmax(torch.zeros(3), torch.tensor([True, True, False]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    logits = logits.masked_fill(~mask, float("-inf"))
    # Softmax of a row of -inf is NaN, and so is its gradient: such rows get finite logits, then weight zero.
    logits = torch.where(mask.any(dim=-1, keepdim=True), logits, torch.zeros_like(logits))
    return logits.softmax(dim=-1) * mask


def mean_gate_divergence(weights: Tensor, mask: Tensor) -> Tensor:
    """`log M - H(mean of g)` in nats, over the rows with all modalities; 0 without such rows.

    weights: (..., M), g.
    mask: (..., M) bool, presence.
    """
    return gate_balance(weights, mask, 1.0).value()


def gate_balance(weights: Tensor, mask: Tensor, balance: float) -> AuxiliarySums:
    """The sums of the loss `balance mean_gate_divergence(weights, mask)`."""
    whole = mask.all(dim=-1, keepdim=True)

    def divergence(sums: Tensor, rows: Tensor) -> Tensor:
        mean = sums / rows
        return balance * ((mean * mean.clamp_min(1e-12).log()).sum() + math.log(len(sums)))

    return AuxiliarySums((weights * whole).flatten(0, -2).sum(dim=0), whole.sum(), divergence)


class SigmoidGate(Gate):
    """`g_m = sigmoid(w_m . h_m + b_m + u(q_m)) present_m`, `z = sum_m g_m h_m` (after Kiela et al. 2018, 1802.02892).

    Each gate depends only on the feature of its modality. Weights are not normalised, so all may be low. They start
    at one half.

    quality: number of measures q per modality, as in `Gate`; `u` is a `QualityScore`.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, quality: int = 0) -> None:
        super().__init__(modalities, width, quality)
        self.weight = nn.Parameter(torch.zeros(len(modalities), width))
        self.bias = nn.Parameter(torch.zeros(len(modalities)))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.weight, self.bias, *super().gate_parameters()]

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        logits = self.judged((values * self.weight).sum(dim=-1) + self.bias, quality, mask)
        return self.fuse(values, torch.sigmoid(logits) * mask, mask)
