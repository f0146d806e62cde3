"""A loss that ranks the confidence of samples by their past losses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ssl.gather import gather, world_size


class LossHistory(nn.Module):
    """Mean loss of every sample and modality so far, and a ranking loss on it (Moon et al. 2020; QMF, 2023).

    For the mean losses h of a modality, `kappa = 1 - (h - min) / (max - min)`. Neighbours i, j in the batch
    contribute `max(0, -sign(kappa_i - kappa_j) (c_i - c_j) + |kappa_i - kappa_j|)`. Samples that were easy to learn
    should get more confidence.

    - `keys`: keys of all samples.

    The history is part of the checkpoint.
    """

    total: Tensor
    count: Tensor

    def __init__(self, keys: list[str], modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.numbers = {key: number for number, key in enumerate(keys)}
        self.modalities = modalities
        self.register_buffer("total", torch.zeros(len(keys), len(modalities)))
        self.register_buffer("count", torch.zeros(len(keys), len(modalities)))

    def forward(
        self, keys: list[str], confidence: dict[str, Tensor], losses: dict[str, Tensor], present: dict[str, Tensor]
    ) -> Tensor:
        """Adds `losses` to the history and returns the ranking loss ().

        - `confidence`, `losses` (B,) by modality.
        - `present` (B,) by modality: absent samples do not count.

        Raises `KeyError` for an unknown key.
        """
        rows = torch.tensor([self.numbers[key] for key in keys], device=self.total.device)
        terms = []
        for column, name in enumerate(self.modalities):
            self._remember(rows, column, losses[name].detach(), present[name])
            kappa = self._kappa(column)[rows]
            valid = present[name] & present[name].roll(-1)
            order = kappa - kappa.roll(-1)
            apart = confidence[name] - confidence[name].roll(-1)
            term = F.relu(-order.sign() * apart + order.abs())
            terms.append(torch.where(valid, term, torch.zeros_like(term)).sum() / valid.sum().clamp_min(1))
        return torch.stack(terms).mean()

    @torch.no_grad()
    def _remember(self, rows: Tensor, column: int, losses: Tensor, present: Tensor) -> None:
        if world_size() > 1:
            rows, losses, present = gather(rows), gather(losses), gather(present)
        weight = present.to(self.total.dtype)
        self.total[:, column].index_add_(0, rows, losses.to(self.total.dtype) * weight)
        self.count[:, column].index_add_(0, rows, weight)

    def _kappa(self, column: int) -> Tensor:
        seen = self.count[:, column] > 0
        mean = self.total[:, column] / self.count[:, column].clamp_min(1)
        if not bool(seen.any()):
            return torch.zeros_like(mean)
        low, high = mean[seen].min(), mean[seen].max()
        return 1 - (mean - low) / (high - low).clamp_min(1e-12)
