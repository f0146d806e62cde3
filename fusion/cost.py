"""The cost of a backbone: parameters, and multiply-adds per segment."""

from dataclasses import dataclass

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..shards.clip_spec import ClipSpec
from ..shards.transforms import Preparation
from .backbone import Backbone
from .blank_segment import blank_segment, in_evaluation


@dataclass(frozen=True)
class Cost:
    """The cost of one part of a backbone.

    part: a modality, `fusion (NAME)` or `all`.
    parameters: number of parameters.
    multiply_adds: of matrix products and convolutions, per segment.
    """

    part: str
    parameters: int
    multiply_adds: int


def measure_cost(backbone: Backbone, spec: ClipSpec) -> list[Cost]:
    """The cost of each modality (encoder and projections), of the fusion, and of the whole backbone.

    The count is taken on one blank segment of `spec`, so it holds for inputs of this size.
    """
    batch = blank_segment(backbone.modalities, spec)
    streams = Preparation(spec)(batch)
    # The counter does not count the CPU's fused attention kernel.
    with in_evaluation(backbone), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone(streams, batch.present, batch.start)
    counts = counter.get_flop_counts()
    root = type(backbone).__name__

    def cost(part: str, *modules: str) -> Cost:
        found: list[nn.Module] = [backbone.get_submodule(name) for name in modules if _holds(backbone, name)]
        # The counter counts a multiply-add as two operations.
        operations = sum(sum(counts.get(f"{root}.{name}", {}).values()) for name in modules) // 2
        return Cost(part, sum(p.numel() for module in found for p in module.parameters()), operations)

    parts = [
        cost(name, f"encoders.{name}", f"projections.{name}", f"token_projections.{name}")
        for name in backbone.modalities
    ]
    parts.append(cost(f"fusion ({backbone.spec.fusion})", "fusion"))
    total = sum(part.parameters for part in parts), sum(part.multiply_adds for part in parts)
    return [*parts, Cost("all", *total)]


def _holds(module: nn.Module, name: str) -> bool:
    return any(name == known for known, _ in module.named_modules())


def in_words(number: int) -> str:
    """A count with three digits and a unit.

    >>> in_words(3_400_000), in_words(512_000), in_words(87)
    ('3.4 M', '512 k', '87')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
