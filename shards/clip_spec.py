"""How a bundle's encoder sees a segment, as plain data: reading it needs no torch."""

from dataclasses import dataclass
from typing import Any

from .index import Statistics
from .region import Region, plain_region


@dataclass(frozen=True)
class ClipSpec:
    """What an encoder sees of a segment, and how to make it from stored media.

    `seconds`, `frames`: the window; `size`: pixels of the square; `short_side`, `fps`, `sample_rate`, `flow_bound`:
    the packed media's; `statistics`: per modality, in its unit; `stretch`: the share of a packed clip that one window
    covers, played in `seconds` (0: as it is; a recording of any length never is); `region`: the part of the picture
    that was packed. A bundle carries it, so that prediction prepares data as training did.
    """

    seconds: float
    frames: int
    size: int
    short_side: int
    fps: float
    sample_rate: int
    flow_bound: float
    statistics: dict[str, Statistics]
    stretch: float = 0.0
    region: Region | None = None


def plain_clip_spec(content: dict[str, Any]) -> ClipSpec:
    """A `ClipSpec` from its plain form, as JSON holds it."""
    statistics = {
        name: Statistics(tuple(entry["mean"]), tuple(entry["std"])) for name, entry in content["statistics"].items()
    }
    return ClipSpec(**content | {"statistics": statistics, "region": plain_region(content.get("region"))})
