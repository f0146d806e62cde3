"""Token sequences of several modalities, some of them absent."""

import torch
from torch import Tensor


def as_tokens(feature: Tensor, mask: Tensor) -> Tensor:
    """Tokens (..., L, D); a pooled feature (..., D) becomes one token. `mask` (...) has the leading dimensions."""
    return feature if feature.dim() == mask.dim() + 2 else feature.unsqueeze(-2)


def fill_absent(feature: Tensor, mask: Tensor, missing: Tensor) -> Tensor:
    """Tokens (..., L, D) of one modality, with the vector `missing` (D,) where it is absent."""
    tokens = as_tokens(feature, mask)
    return torch.where(mask[..., None, None], tokens, missing.to(tokens.dtype))


def token_means(features: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean token (..., D) by modality."""
    return {name: as_tokens(feature, present[name]).mean(dim=-2) for name, feature in features.items()}


def join_tokens(
    features: dict[str, Tensor], present: dict[str, Tensor], modalities: tuple[str, ...], missing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (..., L, D) of all modalities in order, the modality number (L,) of each, and their presence (..., L).

    Tokens of an absent modality are the learned vector `missing` (M, D).
    """
    tokens, owners, there = [], [], []
    for number, name in enumerate(modalities):
        sequence = fill_absent(features[name], present[name], missing[number])
        tokens.append(sequence)
        owners.append(torch.full((sequence.shape[-2],), number, device=sequence.device))
        there.append(present[name][..., None].expand(sequence.shape[:-1]))
    return torch.cat(tokens, dim=-2), torch.cat(owners), torch.cat(there, dim=-1)
