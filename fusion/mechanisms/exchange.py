"""Fusion in which modalities scale each other's channels before they are averaged."""

import torch
from torch import Tensor, nn

from .gates import Fused, Fusion, absent_features, presence_shares, stack_features
from .tokens import token_means


class TransferModule(Fusion):
    """`s = [mean F_1; ...; mean F_M]`, `e = relu(W s + b)`, `F_m <- 2 sigmoid(W_m e) * F_m`; z is their mean.

    Squeeze and excitation between streams (Joze et al. 2020, MMTM). F_m are tokens (..., L_m, D) or pooled features
    (..., D). W_m starts at zero, so that F_m does not change. In s, a learned vector replaces an absent modality.
    Reported weights: the mean factor of a modality over channels, divided by the number of present modalities.

    ratio: e has `2 M D / ratio` channels.
    """

    level = "token"

    def __init__(self, modalities: tuple[str, ...], width: int, ratio: int = 4) -> None:
        super().__init__(modalities, width)
        self.missing = absent_features(modalities, width)
        count = len(modalities)
        hidden = max(2 * count * width // ratio, 1)
        self.squeeze = nn.Linear(count * width, hidden)
        self.excite = nn.Parameter(torch.zeros(count, width, hidden))
        self.bias = nn.Parameter(torch.zeros(count, width))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        means = token_means(features, present)
        values, mask = stack_features(means, present, self.modalities, self.missing)
        joint = self.squeeze(values.flatten(-2)).relu()
        factors = 2 * torch.sigmoid(torch.einsum("...h,mdh->...md", joint, self.excite) + self.bias)
        # Factors are equal for all tokens, so they can be applied after the mean over tokens.
        shares = presence_shares(mask, values)
        weights = factors.mean(dim=-1) * shares
        return self.finish((shares[..., None] * factors * values).sum(dim=-2), weights, mask)


class FilmFusion(Fusion):
    """`y_m = (1 + dgamma_m(c_m)) * h_m + beta_m(c_m)`; z is the mean of y_m over the present modalities.

    Feature-wise linear modulation (Perez et al. 2018). c_m is the mean of the other present modalities. dgamma and
    beta start at zero, and are zero where no other modality is present. Reported weights: equal shares of the present
    modalities.

    hidden: width of the layer between c_m and its dgamma and beta.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, hidden: int = 64) -> None:
        super().__init__(modalities, width)
        count = len(modalities)
        self.condition = nn.Parameter(torch.randn(count, hidden, width) / width**0.5)
        self.modulate = nn.Parameter(torch.zeros(count, 2 * width, hidden))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        there = values * mask[..., None]
        others = mask.sum(dim=-1, keepdim=True) - mask.long()
        context = (there.sum(dim=-2, keepdim=True) - there) / others.clamp_min(1)[..., None]
        hidden = torch.einsum("...md,mhd->...mh", context, self.condition).relu()
        change, shift = torch.einsum("...mh,meh->...me", hidden, self.modulate).chunk(2, dim=-1)
        lonely = (others == 0)[..., None]
        modulated = torch.where(lonely, values, (1 + change) * values + shift)
        return self.fuse(modulated, presence_shares(mask, values), mask)
