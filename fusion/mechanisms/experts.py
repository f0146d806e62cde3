"""Sparse mixture of experts: each sample uses a few networks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gates import AuxiliarySums, Fused, Gate, absent_features, masked_softmax, presence_shares, stack_features


class TopKExperts(Gate):
    """Noisy top-k gating (Shazeer et al. 2017) over one expert per modality and free experts that see all modalities.

    With `x = [h_1; ...; h_M; present]`: `H = x W_g + n softplus(x W_n)`, with n standard normal in training and 0
    otherwise; `G = softmax` over the k largest H of the available experts; `z = sum_e G_e E_e`. The expert of an
    absent modality is not available. W_g and W_n start at zero.

    Reported weight of a modality: the weight of its expert plus an equal share of the free experts' weights. Weights
    sum to one. The auxiliary loss `balance (CV^2(importance) + CV^2(load))` covers free experts only; balancing the
    others would force the use of uninformative modalities.

    free: number of free experts.
    k: number of experts per sample.
    hidden: hidden width of every expert.
    balance: factor of the auxiliary loss.
    """

    def __init__(
        self,
        modalities: tuple[str, ...],
        width: int,
        free: int = 4,
        k: int = 2,
        hidden: int = 64,
        balance: float = 0.01,
    ) -> None:
        super().__init__(modalities, width)
        self.missing = absent_features(modalities, width)
        self.free, self.k, self.balance = free, k, balance
        count, everything = len(modalities), len(modalities) * (width + 1)
        self.own = nn.ModuleList(_expert(width, hidden, width) for _ in modalities)
        self.shared = nn.ModuleList(_expert(everything, hidden, width) for _ in range(free))
        self.gate = nn.Parameter(torch.zeros(everything, count + free))
        self.noise = nn.Parameter(torch.zeros(everything, count + free))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.gate, self.noise]

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        everything = torch.cat([values.flatten(-2), mask.to(values.dtype)], dim=-1)
        experts = [expert(values[..., number, :]) for number, expert in enumerate(self.own)]
        outputs = torch.stack([*experts, *(expert(everything) for expert in self.shared)], dim=-2)
        clean, deviation = everything @ self.gate, F.softplus(everything @ self.noise)
        noisy = clean + torch.randn_like(clean) * deviation if self.training else clean
        some = mask.any(dim=-1, keepdim=True)
        available = torch.cat([mask, some.expand(*mask.shape[:-1], self.free)], dim=-1)
        ranked = noisy.masked_fill(~available, float("-inf"))
        shares = masked_softmax(noisy, _largest(ranked, self.k) & available)
        count = mask.shape[-1]
        spread = presence_shares(mask, shares)
        weights = shares[..., :count] + shares[..., count:].sum(dim=-1, keepdim=True) * spread
        fused = self.finish((shares[..., None] * outputs).sum(dim=-2), weights, mask)
        if not self.training or self.free < 2:
            return fused
        load = _chance_of_choice(clean, ranked, deviation, self.k)[..., count:] * some
        sums = torch.cat([shares[..., count:], load], dim=-1).flatten(0, -2).sum(dim=0)

        def balanced(sums: Tensor, rows: Tensor) -> Tensor:
            free, load = sums.chunk(2)
            return self.balance * (_variation(free) + _variation(load))

        return fused.with_auxiliary(AuxiliarySums(sums, some.sum(), balanced))


def _expert(inputs: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, width))


def _largest(values: Tensor, k: int) -> Tensor:
    """A mask of the `k` largest values of the last dimension. Ties go to the first; `topk` would pick any."""
    mine, other = values.unsqueeze(-1), values.unsqueeze(-2)
    place = torch.arange(values.shape[-1], device=values.device)
    before = (other > mine) | ((other == mine) & (place < place.unsqueeze(-1)))
    return before.sum(dim=-1) < k


def _variation(values: Tensor) -> Tensor:
    """The squared coefficient of variation."""
    return values.var(unbiased=False) / values.mean().square().clamp_min(1e-10)


def _chance_of_choice(clean: Tensor, ranked: Tensor, deviation: Tensor, k: int) -> Tensor:
    """Probability that an expert is among the k largest if only its noise is drawn again: a differentiable load."""
    ordered = ranked.sort(dim=-1, descending=True).values
    if k >= ordered.shape[-1]:
        return torch.ones_like(clean)
    # The threshold is the k-th largest of the other experts. For a chosen expert it is the (k + 1)-th of all.
    inside, outside = ordered[..., k - 1 : k], ordered[..., k : k + 1]
    # Clamped for rows with fewer than k available experts: infinity would make the gradient NaN.
    rival = torch.where(ranked >= inside, outside, inside).clamp_min(-1e4)
    return torch.distributions.Normal(0.0, 1.0).cdf((clean - rival) / deviation)
