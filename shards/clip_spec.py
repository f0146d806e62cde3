"""`ClipRequest` and `ClipSpec`: what is cut from a clip, and how an encoder sees it. Plain data without torch."""

import math
from dataclasses import dataclass, replace
from typing import Any

from .errors import RequestError
from .index.table import Index, Statistics
from .media.pack_settings import PackSettings, plain_settings
from .media.region import Region, plain_region, region_text
from .modality import modality


@dataclass(frozen=True)
class ClipRequest:
    """What to cut from every clip.

    - `modalities`: streams to read.
    - `segments`, `seconds`: number and length of the windows.
    - `frames`: video frames per window.
    - `size`: side in pixels of the square picture.
    - `stretch`: share of its clip that each window covers. The window is then played at the speed at which it lasts
      `seconds`, so that slow and fast executions of an action look alike. Flow stays in pixels per packed frame. 0:
      windows are not stretched.

    Raises `RequestError` for `stretch` with audio (stretching would change its pitch), for no modality, and for
    numbers out of range.
    """

    modalities: tuple[str, ...]
    segments: int
    seconds: float
    frames: int
    size: int
    stretch: float = 0.0

    def __post_init__(self) -> None:
        if not self.modalities:
            raise RequestError("no modality to read: give at least one")
        for name in ("segments", "frames", "size"):
            if not getattr(self, name) >= 1:
                raise RequestError(f"{name} of a request is {getattr(self, name)}: give at least 1")
        if not 0 < self.seconds < math.inf:
            raise RequestError(f"seconds of a request is {self.seconds}: give a number above 0")
        if not 0 <= self.stretch <= 1:
            raise RequestError(f"stretch of a request is {self.stretch}: give 0 to 1")
        heard = [name for name in self.modalities if self.stretch and modality(name).kind == "audio"]
        if heard:
            raise RequestError(f"'{heard[0]}' cannot be stretched: drop this modality, or set data.stretch to 0")

    def covered(self, duration: float) -> float:
        """Returns the seconds of a clip of `duration` seconds that one window covers."""
        return self.stretch * duration or self.seconds


@dataclass(frozen=True)
class ClipSpec:
    """What an encoder sees of a segment, and how to make it from stored media.

    A bundle stores it, so that prediction prepares data exactly as training did.

    - `seconds`, `frames`: length of the window and number of video frames in it.
    - `size`: side in pixels of the square picture.
    - `short_side`: short side in pixels of the packed video.
    - `fps`: frames per second of the packed video.
    - `sample_rate`: sample rate of the packed sound in Hz.
    - `flow_bound`: pixel/frame at the end of the packed flow's byte range.
    - `statistics`: mean and deviation per channel by modality, in the modality's unit.
    - `stretch`: share of a clip that one window covers, played in `seconds`. 0: windows are not stretched.
    - `region`: the part of the picture that was packed. None: all of it.
    - `packing`: all pack settings. None in older bundles, which do not store them.
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
    packing: PackSettings | None = None

    @classmethod
    def of(cls, index: Index, request: ClipRequest) -> "ClipSpec":
        """How the segments that `request` cuts from the shards of `index` are prepared."""
        settings = index.settings
        return cls(
            request.seconds,
            request.frames,
            request.size,
            settings.size,
            settings.fps,
            settings.sample_rate,
            settings.flow_bound,
            {name: index.statistics[name] for name in request.modalities},
            request.stretch,
            settings.region,
            settings,
        )

    def covered(self, duration: float) -> float:
        """Returns the seconds of a clip of `duration` seconds that one window covers."""
        return self.stretch * duration or self.seconds

    def pack_settings(self) -> PackSettings:
        """Returns the settings with which the encoder's training media were packed."""
        return replace(
            self.packing or PackSettings(tuple(self.statistics)),
            size=self.short_side,
            fps=self.fps,
            sample_rate=self.sample_rate,
            flow_bound=self.flow_bound,
            region=self.region,
        )


# Smallest and largest value of each field in a file from an unknown sender, and most values of one window.
_BOUNDS = {
    "seconds": (1e-3, 3600),
    "frames": (1, 4096),
    "size": (1, 8192),
    "short_side": (1, 8192),
    "fps": (1e-3, 1000),
    "sample_rate": (100, 1_000_000),
    "flow_bound": (1e-6, 1e6),
    "stretch": (0, 1),
}
_WHOLE = ("frames", "size", "short_side", "sample_rate")
_MOST_VALUES = 2**28


def plain_clip_spec(content: dict[str, Any]) -> ClipSpec:
    """Returns a `ClipSpec` from its JSON form. Raises `ValueError` for sizes that no model has."""
    statistics = {
        name: Statistics(tuple(entry["mean"]), tuple(entry["std"])) for name, entry in content["statistics"].items()
    }
    packing = content.get("packing")
    plain = {
        "statistics": statistics,
        "region": plain_region(content.get("region")),
        "packing": None if packing is None else plain_settings(packing),
    }
    spec = ClipSpec(**content | plain)
    _check_bounds(spec)
    return spec


def _check_bounds(spec: ClipSpec) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = getattr(spec, name)
        kinds = int if name in _WHOLE else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            raise ValueError(f"{name} is {value!r}, not a number from {least:g} to {most:g}")
    if max(spec.frames * spec.size**2, spec.seconds * spec.sample_rate) > _MOST_VALUES:
        raise ValueError(f"a window has more than {_MOST_VALUES} values")
    for entry in spec.statistics.values():
        if not all(isinstance(value, float | int) and math.isfinite(value) for value in (*entry.mean, *entry.std)):
            raise ValueError("its statistics hold values that are not finite")
    if spec.packing is not None and not 0 < spec.packing.clip_seconds <= spec.packing.max_seconds:
        raise ValueError(f"clip_seconds of packing are {spec.packing.clip_seconds!r}, not above 0")


def check_packing(spec: ClipSpec, index: Index) -> None:
    """Raises `RequestError` if shards were packed with other settings than the training data of this `spec`."""
    settings = index.settings
    for name, trained, packed in (
        ("short side", spec.short_side, settings.size),
        ("frames per second", spec.fps, settings.fps),
        ("sample rate", spec.sample_rate, settings.sample_rate),
        ("flow bound", spec.flow_bound, settings.flow_bound),
    ):
        if trained != packed:
            raise RequestError(
                f"'{index.folder}' is packed with {name} {packed:g}, the encoder was trained with {trained:g}: "
                "pack the source again with that setting"
            )
    if spec.region != settings.region:
        trained, packed = (
            "the whole picture" if region is None else f"region {region_text(region)}"
            for region in (spec.region, settings.region)
        )
        raise RequestError(
            f"'{index.folder}' is packed with {packed}, the encoder was trained with {trained}: "
            "pack the source again with that setting"
        )
