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
from .mechanisms.gates import Fusion, SigmoidGate, SoftmaxGate, StaticFusion
from .mechanisms.opinion import OpinionPool
from .mechanisms.products import BilinearFusion, LowRankFusion, TensorFusion
from .mechanisms.reliability import ReliabilityGate
from .own_classes import is_path, load_class

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
    "reliability": ReliabilityGate,
}
# Constructor arguments that the backbone sets.
GIVEN = ("modalities", "width")


def fusions_at(*levels: str) -> list[str]:
    """Names of the mechanisms of these levels: `feature` (pooled), `token` (sequences) or `decision` (scores).

    >>> fusions_at("token")
    ['mmtm', 'cross', 'bottleneck']
    """
    return [name for name, kind in FUSIONS.items() if kind.level in levels]


def fusion_class(name: str) -> type[Fusion]:
    """The class of a mechanism.

    name: a name of `FUSIONS`, or a class path `package.module:Class` to import.

    Raises `RequestError` for an unknown name, and for a class that cannot be imported or is not a `Fusion`.
    """
    if is_path(name):
        return load_class(name, Fusion, "fusion")
    if name not in FUSIONS:
        raise choice_error("fusion", name, FUSIONS)
    return FUSIONS[name]


def check_fusion(name: str, arguments: Collection[str]) -> None:
    """Raises `RequestError` for an unknown mechanism, and for an argument that the mechanism does not have."""
    known = set(signature(fusion_class(name)).parameters) - set(GIVEN)
    for argument in arguments:
        if argument not in known:
            raise choice_error(f"argument of fusion {name}", argument, known)


def build_fusion(name: str, modalities: tuple[str, ...], width: int, arguments: dict[str, Any]) -> Fusion:
    """Builds a mechanism as `Class(modalities, width, **arguments)`.

    name: a name of `FUSIONS`, or a class path.
    modalities: names, in the order of the weights.
    width: D, the length of a feature; for decisions the number of classes.
    arguments: further arguments of the mechanism.

    Raises `RequestError` for an unknown name, and for arguments that the class does not accept.
    """
    check_fusion(name, arguments)
    try:
        return fusion_class(name)(modalities, width, **arguments)
    except (TypeError, ValueError) as error:
        raise RequestError(f"fusion '{name}' does not accept the arguments {arguments}: {error}") from error
