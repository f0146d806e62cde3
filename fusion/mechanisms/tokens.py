"""Token sequences of several modalities, some of them absent."""

import torch
from torch import Tensor


def as_tokens(feature: Tensor, mask: Tensor) -> Tensor:
    """Tokens (..., L, D). A pooled feature (..., D) becomes one token. `mask` (...): presence."""
    return feature if feature.dim() == mask.dim() + 2 else feature.unsqueeze(-2)


def zero_absent(feature: Tensor, mask: Tensor) -> Tensor:
    """Tokens (..., L, D) of one modality, zero where `mask` (...) is false."""
    return as_tokens(feature, mask).masked_fill(~mask[..., None, None], 0)


def token_means(features: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean token (..., D) by modality."""
    return {name: as_tokens(feature, present[name]).mean(dim=-2) for name, feature in features.items()}


def join_tokens(
    features: dict[str, Tensor], present: dict[str, Tensor], modalities: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Joins the tokens of all modalities; those of absent modalities are zero.

    features: tokens (..., L_m, D) or pooled features (..., D) by modality.
    present: (...) bool by modality.
    modalities: names, in the order of the result.

    Returns tokens (..., L, D), the modality number (L,) of each token, and presence (..., L).
    """
    tokens, owners, there = [], [], []
    for number, name in enumerate(modalities):
        sequence = zero_absent(features[name], present[name])
        tokens.append(sequence)
        owners.append(torch.full((sequence.shape[-2],), number, device=sequence.device))
        there.append(present[name][..., None].expand(sequence.shape[:-1]))
    return torch.cat(tokens, dim=-2), torch.cat(owners), torch.cat(there, dim=-1)
