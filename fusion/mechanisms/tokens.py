"""Sequences of tokens of several modalities, some of them absent."""

import torch
from torch import Tensor


def as_tokens(feature: Tensor, mask: Tensor) -> Tensor:
    """Tokens (..., L, D); a pooled feature (..., D) is one token. `mask` (...) tells how many dimensions lead."""
    return feature if feature.dim() == mask.dim() + 2 else feature.unsqueeze(-2)


def fill_absent(feature: Tensor, mask: Tensor, missing: Tensor) -> Tensor:
    """The tokens (..., L, D) of one modality, the vector `missing` (D,) in place of those that are absent."""
    tokens = as_tokens(feature, mask)
    return torch.where(mask[..., None, None], tokens, missing.to(tokens.dtype))


def token_means(features: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every modality's mean token (..., D)."""
    return {name: as_tokens(feature, present[name]).mean(dim=-2) for name, feature in features.items()}


def join_tokens(
    features: dict[str, Tensor], present: dict[str, Tensor], modalities: tuple[str, ...], missing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All tokens (..., L, D) in the order of `modalities`, whose each is (L,), and which are there (..., L).

    An absent modality's tokens are the learned vector `missing` (M, D).
    """
    tokens, owners, there = [], [], []
    for number, name in enumerate(modalities):
        sequence = fill_absent(features[name], present[name], missing[number])
        tokens.append(sequence)
        owners.append(torch.full((sequence.shape[-2],), number, device=sequence.device))
        there.append(present[name][..., None].expand(sequence.shape[:-1]))
    return torch.cat(tokens, dim=-2), torch.cat(owners), torch.cat(there, dim=-1)
