"""The fusion mechanisms by name."""

from collections.abc import Collection
from inspect import signature
from typing import Any

from ..shards.errors import RequestError, choice_error
from .mechanisms.attention import BottleneckFusion, CrossAttentionFusion
from .mechanisms.channel_gates import GatedMultimodalUnit, VectorGate
from .mechanisms.concat import ConcatFusion, GatedConcat
from .mechanisms.decision import (
    EnergyDecision,
    EntropyDecision,
    EvidentialDecision,
    MeanDecision,
    ProductDecision,
    WeightedMeanDecision,
)
from .mechanisms.exchange import FilmFusion, TransferModule
from .mechanisms.experts import TopKExperts
from .mechanisms.gates import Fusion, SigmoidGate, SoftmaxGate
from .mechanisms.opinion import OpinionPool
from .mechanisms.products import BilinearFusion, LowRankFusion, TensorFusion
from .mechanisms.static import StaticFusion

FUSIONS: dict[str, type[Fusion]] = {
    "static": StaticFusion,
    "concat": ConcatFusion,
    "gated_concat": GatedConcat,
    "sigmoid": SigmoidGate,
    "softmax": SoftmaxGate,
    "vector": VectorGate,
    "gmu": GatedMultimodalUnit,
    "topk": TopKExperts,
    "mmtm": TransferModule,
    "film": FilmFusion,
    "cross": CrossAttentionFusion,
    "bottleneck": BottleneckFusion,
    "tensor": TensorFusion,
    "lowrank": LowRankFusion,
    "bilinear": BilinearFusion,
    "mean": MeanDecision,
    "weighted_mean": WeightedMeanDecision,
    "product": ProductDecision,
    "entropy": EntropyDecision,
    "energy": EnergyDecision,
    "evidential": EvidentialDecision,
    "opinion": OpinionPool,
}
# Arguments that a run sets itself.
GIVEN = ("modalities", "width")


def fusions_at(*levels: str) -> list[str]:
    """Names of the mechanisms that join a pooled `feature`, a `token` sequence, or a `decision` of each modality."""
    return [name for name, kind in FUSIONS.items() if kind.level in levels]


def check_fusion(name: str, arguments: Collection[str]) -> None:
    """`RequestError` for an unknown mechanism or an argument that it does not have."""
    if name not in FUSIONS:
        raise choice_error("fusion", name, FUSIONS)
    known = set(signature(FUSIONS[name]).parameters) - set(GIVEN)
    for argument in arguments:
        if argument not in known:
            raise choice_error(f"argument of fusion {name}", argument, known)


def build_fusion(name: str, modalities: tuple[str, ...], width: int, arguments: dict[str, Any]) -> Fusion:
    """The mechanism `name` over features of `width`; `RequestError` for an unknown name or argument."""
    check_fusion(name, arguments)
    try:
        return FUSIONS[name](modalities, width, **arguments)
    except (TypeError, ValueError) as error:
        raise RequestError(f"fusion '{name}' does not take its arguments {arguments}: {error}") from error
