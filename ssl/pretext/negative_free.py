"""Tasks on agreement across modalities, without negatives."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from lightly.loss import BarlowTwinsLoss, LeJEPALoss, NegativeCosineSimilarity, VICRegLoss
from lightly.models.modules.heads import (
    BYOLPredictionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
    VICRegProjectionHead,
)
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError
from .base import (
    FUSED,
    PLAIN,
    TEACHER,
    PretextTask,
    mean_accuracy,
    mean_of,
    modality_pairs,
    names_in,
    segment_numbers,
    source_feature,
    unit,
)

# Batch norm and covariances need at least this number of rows.
FEWEST = 4


class Paired(NamedTuple):
    """Rows of two modalities. Row n of both comes from the same segment.

    first, second: (N, D).
    segments: (N,), segment number within the clip.
    """

    first: Tensor
    second: Tensor
    segments: Tensor


class Seen(NamedTuple):
    """One modality and segment of N clips.

    guess: (N, D), the prediction from the rows.
    row: (N, D), the rows without gradient.
    """

    guess: Tensor
    row: Tensor


class PairAgreement(PretextTask):
    """Base of tasks on agreement: one expander with batch norm per modality, and the rows of each pair.

    The rows of a pair are all (clip, segment) with both modalities present. A pair with fewer than four rows is
    skipped. The accuracy is that of `retrieval` between the two modalities. It is not part of the loss.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        hidden: int = 256,
        dimension: int = 256,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs([*modalities, FUSED], pairs)
        self.heads = nn.ModuleDict({name: self.head(width, hidden, dimension) for name in names_in(self.pairs)})

    @staticmethod
    def head(width: int, hidden: int, dimension: int) -> nn.Module:
        """Builds the expander of a modality: (N, `width`) -> (N, `dimension`)."""
        return VICRegProjectionHead(width, hidden, dimension, num_layers=2)

    def projected(self, plain: Encoded) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Projected rows (B, K, D) and presence (B, K) by modality."""
        rows, present = {}, {}
        for name, head in self.heads.items():
            feature, mask = source_feature(plain, name)
            if int(mask.sum()) >= FEWEST:
                projected = head(feature[mask])
                out = projected.new_zeros(*mask.shape, projected.shape[-1]).index_put((mask,), projected)
            else:
                # Stays in the graph, because every rank needs a gradient for every parameter.
                idle = sum(parameter.sum() * 0 for parameter in head.parameters())
                out, mask = feature.sum() * 0 + idle + feature.new_zeros(*mask.shape, 1), torch.zeros_like(mask)
            rows[name], present[name] = out, mask
        return rows, present

    def pair_rows(self, plain: Encoded) -> tuple[list[Paired], list[Tensor]]:
        """The pairs with enough rows, and all projected rows."""
        rows, present = self.projected(plain)
        found = []
        for first, second in self.pairs:
            mask = present[first] & present[second]
            if int(mask.sum()) >= FEWEST:
                found.append(Paired(rows[first][mask], rows[second][mask], segment_numbers(plain)[mask.flatten()]))
        return found, list(rows.values())


@torch.no_grad()
def retrieval(pairs: Sequence[Paired]) -> dict[str, Tensor]:
    """Top-1 retrieval by cosine, in both directions, mean over pairs: `accuracy` and its `chance`.

    Candidates are the rows with the same segment number, one per clip. Segments of one clip are similar, so with all
    of them chance would not be one divided by the number of candidates.
    """
    accuracies, chances = [], []
    for first, second, segments in pairs:
        candidates = segments[:, None] == segments[None, :]
        similarity = (unit(first) @ unit(second).T).masked_fill(~candidates, float("-inf"))
        own = torch.arange(len(first), device=first.device)
        accuracies.append(torch.cat([similarity.argmax(1) == own, similarity.argmax(0) == own]).float().mean())
        chances.append((1 / candidates.sum(1)).mean())
    return mean_accuracy(accuracies, chances)


class VicReg(PairAgreement):
    """VICReg (Bardes et al. 2022) across modalities: agreement, variance of each dimension, no covariance.

    `invariance mean |a - b|^2 + variance hinge(1 - std) + covariance off-diagonal^2`, the loss of lightly. Published
    weights 25, 25, 1; heads of 2 layers of 256 (published: 8192).

    Shortcuts it guards against: collapse (by the second and third term), and absent streams (`present`).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 256,
        dimension: int = 256,
    ) -> None:
        super().__init__(modalities, width, pairs, hidden, dimension)
        self.loss = VICRegLoss(invariance, variance, covariance)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found, idle = self.pair_rows(encoded[PLAIN])
        return {"loss": mean_of([self.loss(a, b) for a, b, _ in found], *idle), **retrieval(found)}


class BarlowTwins(PairAgreement):
    """Barlow Twins (Zbontar et al. 2021) across modalities: their cross-correlation approaches the identity.

    `sum_i (1 - C_ii)^2 + redundancy sum_(i != j) C_ij^2`, the loss of lightly, on the joined batch of all processes
    (the gathering in lightly gives another gradient). Published redundancy .005; heads of 2 layers of 256 (published:
    8192). The sum is divided by the number of dimensions, so the weight does not depend on it.

    Shortcut it guards against: collapse (by the diagonal).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        redundancy: float = 0.005,
        hidden: int = 256,
        dimension: int = 256,
    ) -> None:
        super().__init__(modalities, width, pairs, hidden, dimension)
        self.loss, self.dimension = BarlowTwinsLoss(redundancy), dimension

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found, idle = self.pair_rows(encoded[PLAIN])
        return {"loss": mean_of([self.loss(a, b) / self.dimension for a, b, _ in found], *idle), **retrieval(found)}


class Byol(PretextTask):
    """BYOL (Grill et al. 2020) across modalities: one modality predicts the slow feature of another.

    `2 - 2 cos(q_v(f_v), f'_a)` in both directions of every pair, with f' from an exponential moving average of the
    backbone (momentum .996, rising to 1). Targets are the normalised features of the backbone, so no projection head
    is averaged. Predictor hidden 256. The accuracy is that of `retrieval` between predictions and targets.

    Shortcut it guards against: collapse (by predictor and slow target; monitor `embedding/std`).
    """

    teacher = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs(modalities, pairs)
        self.predictors = nn.ModuleDict(
            {name: BYOLPredictionHead(width, hidden, width) for name in names_in(self.pairs)}
        )
        self.loss = NegativeCosineSimilarity()

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain, teacher = encoded[PLAIN], encoded[TEACHER]
        losses, idle, found = [], [], []
        for first, second in self.pairs:
            mask = plain.present[first] & plain.present[second]
            for query, key in ((first, second), (second, first)):
                idle.append(plain.features[query])
                idle += list(self.predictors[query].parameters())
                if int(mask.sum()) >= FEWEST:
                    predicted = self.predictors[query](plain.features[query][mask])
                    wanted = teacher.features[key][mask].detach()
                    losses.append(2 + 2 * self.loss(predicted, wanted))
                    found.append(Paired(predicted, wanted, segment_numbers(plain)[mask.flatten()]))
        return {"loss": mean_of(losses, *idle), **retrieval(found)}


class CrissCross(PairAgreement):
    """CrissCross (Sarkar & Etemad 2023): agreement within and across modalities, at the same and at another time.

    The SimSiam loss `1 - (cos(q(z), sg(z')) + cos(q(z'), sg(z))) / 2`, mean of six terms over two segments of a clip:
    within a modality across time, across modalities at the same time, and across both. Heads as in SimSiam, 3 x 256
    (published: 3 x 2048), predictor hidden 128. Needs K of at least 2. The accuracy is that of `retrieval` between
    the predictions of one modality and the rows of the other at the same time.

    Shortcuts it guards against: collapse (by predictor, stopped gradient and the final batch norm of the heads), and
    a common crop (augmentation is drawn per segment). A lasting binary cue, such as small or large, can be enough to
    minimise the loss: monitor `embedding/rank`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        pairs: Sequence[Sequence[str]] | None = None,
        hidden: int = 256,
        dimension: int = 256,
    ) -> None:
        if segments < 2:
            raise RequestError(f"task 'crisscross' needs data.segments of at least 2, not {segments}")
        super().__init__(modalities, width, pairs, hidden, dimension)
        self.predictors = nn.ModuleDict(
            {name: SimSiamPredictionHead(dimension, hidden // 2, dimension) for name in self.heads}
        )

    @staticmethod
    def head(width: int, hidden: int, dimension: int) -> nn.Module:
        return SimSiamProjectionHead(width, hidden, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        rows, present = self.projected(encoded[PLAIN])
        losses: list[Tensor] = []
        found: list[Paired] = []
        for first, second in self.pairs:
            mask = present[first].all(dim=1) & present[second].all(dim=1)
            if int(mask.sum()) < FEWEST:
                continue
            v, a = ([self._seen(name, row) for row in rows[name][mask].unbind(dim=1)[:2]] for name in (first, second))
            within, across = [_agree(*v), _agree(*a)], [_agree(one, other) for one in v for other in a]
            losses.append(torch.stack(within + across).mean())
            segments = torch.arange(2, device=mask.device).repeat_interleave(int(mask.sum()))
            for query, key in ((v, a), (a, v)):
                guesses = torch.cat([seen.guess for seen in query])
                found.append(Paired(guesses, torch.cat([seen.row for seen in key]), segments))
        return {"loss": mean_of(losses, *rows.values(), *self.predictors.parameters()), **retrieval(found)}

    def _seen(self, name: str, row: Tensor) -> Seen:
        return Seen(self.predictors[name](row), row.detach())


def _agree(one: Seen, other: Seen) -> Tensor:
    """The SimSiam loss: zero if each guess has the direction of the other's row."""
    apart = NegativeCosineSimilarity()
    return 1 + (apart(one.guess, other.row) + apart(other.guess, one.row)) / 2


class LeJepa(PairAgreement):
    """LeJEPA (Balestriero & LeCun 2025) across modalities: embeddings agree and follow an isotropic Gaussian.

    The loss of lightly, with each modality of a pair as a view: the distance to the mean of the pair, plus `sketch`
    times SIGReg, a test of normality along random `directions`. Published weight .05; heads 2 x 256. It needs neither
    teacher nor predictor.

    Shortcut it guards against: collapse (by the test).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        sketch: float = 0.05,
        directions: int = 256,
        hidden: int = 256,
        dimension: int = 64,
    ) -> None:
        super().__init__(modalities, width, pairs, hidden, dimension)
        self.loss = LeJEPALoss(lambda_param=sketch, sigreg_num_vectors=directions)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found, idle = self.pair_rows(encoded[PLAIN])
        losses = []
        # SIGReg draws from the global generator. Seeded from the batch, it is the same on every rank and on resume.
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            for first, second, _ in found:
                views = torch.stack([first, second])
                losses.append(self.loss(local_proj=views, global_proj=views))
        return {"loss": mean_of(losses, *idle), **retrieval(found)}
