"""Fusion by products of channels of different modalities."""

import torch
from torch import Tensor, nn

from ...shards.errors import RequestError
from .gates import Fused, Fusion, presence_shares, stack_features

LARGEST_PRODUCT = 100_000


class TensorFusion(Fusion):
    """`z = W vec([p_1; 1] x ... x [p_M; 1])` with `p_m = P_m h_m` (Zadeh et al. 2017, TFN).

    An absent modality has `p_m = 0`; the appended 1 keeps the products of the others. Reported weights: equal shares
    of the present modalities.

    inner: number of channels of p_m. The outer product has (inner + 1)^M entries.

    Raises `RequestError` for an outer product of more than 100,000 entries.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, inner: int = 8) -> None:
        super().__init__(modalities, width)
        entries = (inner + 1) ** len(modalities)
        if entries > LARGEST_PRODUCT:
            raise RequestError(
                f"fusion 'tensor' over {len(modalities)} modalities with inner={inner} has {entries} products, more "
                f"than {LARGEST_PRODUCT}: give a smaller 'inner', or choose 'lowrank'"
            )
        self.reduce = nn.Parameter(torch.randn(len(modalities), inner, width) / width**0.5)
        self.head = nn.Linear(entries, width)

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        small = torch.einsum("...md,med->...me", values, self.reduce) * mask[..., None]
        product = small.new_ones(*mask.shape[:-1], 1)
        for factor in _with_one(small).unbind(-2):
            product = (product[..., :, None] * factor[..., None, :]).flatten(-2)
        return self.finish(self.head(product), presence_shares(mask, values), mask)


class LowRankFusion(Fusion):
    """`z = sum_r w_r prod_m ([h_m; 1] W_m^(r)) + b`: `TensorFusion` with weights of low rank (Liu et al. 2018, LMF).

    An absent modality has `h_m = 0`. The cost is linear in M, not exponential as in `TensorFusion`. Reported weights:
    equal shares of the present modalities.

    rank: number of terms of the sum.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, rank: int = 4) -> None:
        super().__init__(modalities, width)
        factors = torch.randn(len(modalities), rank, width + 1, width) / width**0.5
        # Factors start near one, so that noise in one modality does not hide the gradient of another.
        factors[:, :, -1] += 1.0
        self.factors = nn.Parameter(factors)
        self.mix = nn.Parameter(torch.full((rank,), 1 / rank))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        terms = torch.einsum("...md,mrde->...mre", _with_one(values * mask[..., None]), self.factors)
        product = terms[..., 0, :, :]
        for number in range(1, terms.shape[-3]):
            product = product * terms[..., number, :, :]
        embedding = torch.einsum("...re,r->...e", product, self.mix) + self.bias
        return self.finish(embedding, presence_shares(mask, values), mask)


class BilinearFusion(Fusion):
    """Compact multilinear pooling: `IFFT(prod_m FFT(psi_m(h_m)))`, signed root, unit length, linear to D.

    psi_m is a count sketch: each channel of h_m is added to a random place under a random sign, both fixed by `seed`.
    The product of the transforms is the transform of the sketch of the outer product (Gao et al. 2016, Fukui et al.
    2016). The product skips absent modalities. Reported weights: equal shares of the present modalities.

    sketch: number of channels of the sketch.
    seed: of the random places and signs, which are part of the state dict.
    """

    places: Tensor
    signs: Tensor

    def __init__(self, modalities: tuple[str, ...], width: int, sketch: int = 1024, seed: int = 0) -> None:
        super().__init__(modalities, width)
        generator = torch.Generator().manual_seed(seed)
        count = len(modalities)
        self.sketch = sketch
        self.register_buffer("places", torch.randint(sketch, (count, width), generator=generator))
        self.register_buffer("signs", torch.randint(2, (count, width), generator=generator) * 2.0 - 1)
        self.head = nn.Linear(sketch, width)

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        # At least single precision: the FFT does not support half precision.
        wide = values if values.dtype == torch.float64 else values.float()
        signed = wide * self.signs.to(wide.dtype)
        sketches = signed.new_zeros(*signed.shape[:-1], self.sketch)
        sketches = sketches.scatter_add(-1, self.places.expand(signed.shape), signed)
        spectra = torch.fft.rfft(sketches, dim=-1)
        spectra = torch.where(mask[..., None], spectra, torch.ones_like(spectra))
        product = spectra[..., 0, :]
        for number in range(1, spectra.shape[-2]):
            product = product * spectra[..., number, :]
        pooled = torch.fft.irfft(product, n=self.sketch, dim=-1)
        # The small term bounds the slope of the root, which is infinite at zero.
        rooted = pooled / (pooled.abs() + 1e-6).sqrt()
        unit = nn.functional.normalize(rooted, dim=-1)
        return self.finish(self.head(unit.to(self.head.weight.dtype)), presence_shares(mask, values), mask)


def _with_one(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)
