"""How a bundle's encoder sees a segment, as plain data: reading it needs no torch."""

from dataclasses import dataclass

from .index import Statistics


@dataclass(frozen=True)
class ClipSpec:
    """What an encoder sees of a segment, and how to make it from stored media.

    `seconds`, `frames`: the window; `size`: pixels of the square; `short_side`, `fps`, `sample_rate`, `flow_bound`:
    the packed media's; `statistics`: per modality, in its unit; `stretch`: the share of a packed clip that one window
    covers, played in `seconds` (0: as it is; a recording of any length never is). A bundle carries it, so that
    prediction prepares data as training did.
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
