"""`Piece`: a stretch of a recording that a model takes as one clip, and its views."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """One view of a piece.

    - `start`, `end`: seconds from the first frame of the recording.
    - `streams`: one window per modality, as shards store it: video (T, C, H, W), audio (N,), signals (N, C). A
      missing modality is absent.
    """

    start: float
    end: float
    streams: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that is treated as one clip.

    - `start`, `end`: seconds from the first frame of the recording.
    - `views`: its windows, at least one.
    - `whole`: it is the whole recording, made as packing and evaluation make a clip.
    - `clock`: Unix time of its start, for live sources.
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
