"""Agreement across modalities without negatives."""

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

# The fewest rows for batch norm and covariances.
FEWEST = 4


class Paired(NamedTuple):
    """Rows (N, D) of two modalities, row by row of one segment, and the segment number (N,) within the clip."""

    first: Tensor
    second: Tensor
    segments: Tensor


class Seen(NamedTuple):
    """Rows (N, D) of one modality and segment: the prediction from them, and the rows without gradient."""

    guess: Tensor
    row: Tensor


class PairAgreement(PretextTask):
    """Base of tasks on agreement: one expander with batch norm per modality, and the rows of each pair.

    Rows of a pair are the (clip, segment) with both modalities present; a pair with fewer than four is skipped. The
    accuracy is that of `retrieval` between the two modalities; it is not part of the loss.
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
        """A modality's expander (N, `width`) -> (N, `dimension`)."""
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
                # Kept in the graph: every rank needs a gradient for every parameter.
                idle = sum(parameter.sum() * 0 for parameter in head.parameters())
                out, mask = feature.sum() * 0 + idle + feature.new_zeros(*mask.shape, 1), torch.zeros_like(mask)
            rows[name], present[name] = out, mask
        return rows, present

    def pair_rows(self, plain: Encoded) -> tuple[list[Paired], list[Tensor]]:
        """All pairs with enough rows, and all projected rows."""
        rows, present = self.projected(plain)
        found = []
        for first, second in self.pairs:
            mask = present[first] & present[second]
            if int(mask.sum()) >= FEWEST:
                found.append(Paired(rows[first][mask], rows[second][mask], segment_numbers(plain)[mask.flatten()]))
        return found, list(rows.values())


@torch.no_grad()
def retrieval(pairs: Sequence[Paired]) -> dict[str, Tensor]:
    """`accuracy`, how often a row is nearer to its partner, by cosine, than to rows of other clips, and its `chance`.

    Both ways, the mean over pairs. Candidates are the rows with the same segment number, one of each clip: segments
    of one clip look alike, so with all of them chance would not be one in the number of candidates.
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

    `invariance mean |a - b|^2 + variance hinge(1 - std) + covariance off-diagonal^2`, lightly's loss. Published
    weights 25, 25, 1; heads 2 layers of 256 (published 8192).

    Shortcut it guards against: collapse, by the second and third term; streams that are absent (`present`).
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

    `sum_i (1 - C_ii)^2 + redundancy sum_(i != j) C_ij^2`, lightly's loss, over the joined batch of all processes
    (lightly's own gathering does not give its gradient). Published redundancy .005; heads 2 layers of 256 (8192).
    The sum over dimensions is divided by their number, so the weight does not depend on it.

    Shortcut it guards against: collapse, by the diagonal.
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
    """BYOL (Grill et al. 2020) across modalities: one modality predicts the moving average's feature of another.

    `2 - 2 cos(q_v(f_v), f'_a)` both ways over every pair, f' from the exponential moving average of the backbone
    (momentum .996 rising to 1). Targets are the backbone's normalised features, so there is no projection to average.
    Predictor 256 hidden. The accuracy is that of `retrieval` between predictions and targets.

    Shortcut it guards against: collapse, by predictor and slow target; watch `embedding/std`.
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
    """CrissCross (Sarkar & Etemad 2023): agreement within and across modalities, at one time and at another.

    The SimSiam form `1 - (cos(q(z), sg(z')) + cos(q(z'), sg(z))) / 2`, the mean of six terms over two segments of a
    clip: within a modality across time, across modalities at the same time, and across both. SimSiam's heads, 3 x 256
    (published 3 x 2048), predictor 128 hidden. Needs K of at least 2. The accuracy is that of `retrieval` between
    what one modality's predictor guesses and the other's rows at the same time.

    Shortcut it guards against: collapse, by predictor, stopped gradient and the batch norm that ends the heads; a
    common crop (augmentation per segment). One two-valued cue that lasts, such as small or large, can satisfy it
    alone: watch `embedding/rank`.
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
    """How far each's guess is from the other's row: zero where they point one way."""
    apart = NegativeCosineSimilarity()
    return 1 + (apart(one.guess, other.row) + apart(other.guess, one.row)) / 2


class LeJepa(PairAgreement):
    """LeJEPA (Balestriero & LeCun 2025) across modalities: every modality's embedding is near their mean, and the
    embeddings of all follow an isotropic Gaussian.

    lightly's loss, with each modality of a pair as a view: agreement plus `sketch` times SIGReg, a test of normality
    along random directions drawn from the batch's generator. Published weight .05; heads 2 x 256.

    Shortcut it guards against: collapse, by the test; there is neither teacher nor predictor.
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
        # The sketch draws from the global generator: lent the batch's own, it is the same on every rank and resume.
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            for first, second, _ in found:
                views = torch.stack([first, second])
                losses.append(self.loss(local_proj=views, global_proj=views))
        return {"loss": mean_of(losses, *idle), **retrieval(found)}
