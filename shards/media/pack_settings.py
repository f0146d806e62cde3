"""`PackSettings`: how media are rewritten when they are packed, and the difference between two settings."""

import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from ..errors import RequestError
from ..modality import Modality, declare
from .region import Region, plain_region, region_text

# Whole numbers, and the smallest of each.
_COUNTS = {
    "size": 2,
    "sample_rate": 1,
    "crf": 0,
    "gop": 1,
    "samples_per_shard": 1,
    "readers": 1,
    "seed": 0,
    "max_pixels": 1,
}
# Numbers above 0, and whether they may be infinite.
_AMOUNTS = {"fps": False, "flow_bound": False, "depth_scale": False, "clip_seconds": True, "max_seconds": True}


@dataclass(frozen=True)
class PackSettings:
    """How media are rewritten when they are packed.

    - `modalities`: modalities to pack.
    - `size`: short side in pixels.
    - `fps`: frames per second of every video stream.
    - `flow_bound`: pixel/frame at the end of the stored byte's range.
    - `sample_rate`: of sound, in Hz.
    - `silence_db`: a sound track with an RMS level below this, in dB relative to full scale, is absent.
    - `crf`, `gop`: H.264 quality, and largest distance between key frames in frames.
    - `clip_seconds`: longest piece. Longer recordings are cut.
    - `samples_per_shard`: most clips per shard.
    - `readers`: processes that will read the shards; each needs at least one shard.
    - `seed`: of the shuffling.
    - `max_pixels`, `max_seconds`: sources with larger pictures or a longer duration are rejected.
    - `rates`: Hz of files that do not store it, by content.
    - `depth_scale`: millimetres per level of a depth file.
    - `region`: left, top, width and height of the packed part of every picture, as shares of it. None: all.
    - `declared`: those of the modalities that are not built in. They become known wherever the settings are read.

    Raises `RequestError` for a value out of range, for a region that is not within the picture, and for a declared
    modality that this process knows as something else.
    """

    modalities: tuple[str, ...] = ("rgb", "flow", "audio")
    size: int = 112
    fps: float = 15.0
    flow_bound: float = 14.0
    sample_rate: int = 16000
    silence_db: float = -60.0
    crf: int = 26
    gop: int = 16
    clip_seconds: float = 30.0
    samples_per_shard: int = 64
    readers: int = 1
    seed: int = 0
    max_pixels: int = 7680 * 4320
    max_seconds: float = 6 * 3600.0
    rates: dict[str, float] = field(default_factory=dict)
    depth_scale: float = 1.0
    region: Region | None = None
    declared: tuple[Modality, ...] = ()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._declare()

    def _declare(self) -> None:
        for entry in self.declared:
            declare(entry)

    def __post_init__(self) -> None:
        self._declare()
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise RequestError(f"pack setting {name} is {value!r}: give a whole number of at least {least}")
        amounts = [(name, getattr(self, name), endless) for name, endless in _AMOUNTS.items()]
        for name, value, endless in [*amounts, *((f"rate of {name}", hz, False) for name, hz in self.rates.items())]:
            # Comparisons with NaN are false.
            if isinstance(value, bool) or not (isinstance(value, Real) and 0 < float(value) <= math.inf):
                raise RequestError(f"pack setting {name} is {value!r}: give a number above 0")
            if value == math.inf and not endless:
                raise RequestError(f"pack setting {name} is infinite: give a finite number above 0")
        # At minus infinity every track sounds.
        if not (isinstance(self.silence_db, Real) and self.silence_db <= 0):
            raise RequestError(f"pack setting silence_db is {self.silence_db!r}: give dB of full scale, at most 0")
        if self.region is not None:
            left, top, width, height = self.region
            # Comparisons with NaN are false.
            inside = left >= 0 and top >= 0 and left + width <= 1 + 1e-9 and top + height <= 1 + 1e-9
            if not (inside and width > 0 and height > 0):
                raise RequestError(
                    f"region {region_text(self.region)} is not within the picture: give left, "
                    "top, width and height as shares of it, such as 0.25,0.5,0.5,0.5"
                )


def plain_settings(content: dict[str, Any]) -> PackSettings:
    """Returns `PackSettings` from their JSON form."""
    plain = {
        "modalities": tuple(content["modalities"]),
        "region": plain_region(content.get("region")),
        "declared": tuple(Modality(**entry) for entry in content.get("declared", ())),
    }
    return PackSettings(**content | plain)


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Returns the settings that differ, as text; empty if all are equal.

    >>> difference({"size": 112, "fps": 15.0}, {"size": 128, "fps": 15.0})
    'size 112, not 128'
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {_plain(before.get(name))}, not {_plain(now.get(name))}" for name in names)


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
