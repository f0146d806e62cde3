"""A stretch of a recording as a model takes it: one clip, by its views."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """One view of a piece: `start`, `end` in seconds from the first frame; `streams` as shards store one window:
    video (T, C, H, W), audio (N,), signals (N, C). What the piece lacks is no stream."""

    start: float
    end: float
    streams: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that is treated as one clip, by its `views`, of which there is at least one.

    `start`, `end` in seconds from the first frame; `whole`: it is all of the recording, made as packing and
    evaluation make a clip; `clock`: of a live source, the Unix time of its start.
    """

    start: float
    end: float
    views: tuple[Window, ...]
    whole: bool = False
    clock: float | None = None

    @property
    def present(self) -> list[str]:
        """The modalities it has."""
        return list(self.views[0].streams)
