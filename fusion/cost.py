"""The cost of a backbone: parameters, and multiply-adds for one segment."""

from dataclasses import dataclass

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..shards.clip_spec import ClipSpec
from ..shards.transforms import Preparation
from .backbone import Backbone
from .blank_segment import blank_segment


@dataclass(frozen=True)
class Cost:
    """`parameters` learned, and the `multiply_adds` of matrix products and convolutions for one segment."""

    part: str
    parameters: int
    multiply_adds: int


def measure_cost(backbone: Backbone, spec: ClipSpec) -> list[Cost]:
    """The cost of each modality's encoder with its projections, of the fusion, and of all together.

    It is counted while one blank segment passes, so it holds for this input.
    """
    batch = blank_segment(backbone.modalities, spec)
    streams = Preparation(spec)(batch)
    training = backbone.training
    backbone.eval()
    # The counter does not see the CPU's fused attention.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone(streams, batch.present, batch.start)
    backbone.train(training)
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
    """A count with three digits and a unit, such as `3.4 M` or `512 k`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
