"""What is cut from a clip, and how an encoder sees it, as plain data: reading it needs no torch."""

from dataclasses import dataclass, replace
from typing import Any

from .errors import RequestError
from .index.table import Index, Statistics
from .media.pack_settings import PackSettings, plain_settings
from .media.region import Region, plain_region, region_text
from .modality import modality


@dataclass(frozen=True)
class ClipRequest:
    """What to cut from every clip: `segments` windows of `seconds`, `frames` video frames each, `size` px square.

    `stretch`: each window covers this share of its clip, however long that is, and is played at the speed at which it
    lasts `seconds` (0: as it is), so that slow and fast executions of an action look alike; flow keeps its pixels per
    packed frame. Sound would change its pitch, so its windows are not stretched: `RequestError` for both.
    """

    modalities: tuple[str, ...]
    segments: int
    seconds: float
    frames: int
    size: int
    stretch: float = 0.0

    def __post_init__(self) -> None:
        heard = [name for name in self.modalities if self.stretch and modality(name).kind == "audio"]
        if heard:
            raise RequestError(f"windows of '{heard[0]}' cannot be stretched: leave it out, or give data.stretch 0")

    def covered(self, duration: float) -> float:
        """The seconds of a clip of so many that one window covers."""
        return self.stretch * duration or self.seconds


@dataclass(frozen=True)
class ClipSpec:
    """What an encoder sees of a segment, and how to make it from stored media.

    `seconds`, `frames`: the window; `size`: pixels of the square; `short_side`, `fps`, `sample_rate`, `flow_bound`:
    the packed media's; `statistics`: per modality, in its unit; `stretch`: the share of a clip that one window
    covers, played in `seconds` (0: as it is); `region`: the part of the picture that was packed; `packing`: all
    settings of the packing, none in bundles from before they were stored. A bundle carries it, so that prediction
    prepares data as training did.
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
        """The seconds of a clip of so many that one window covers."""
        return self.stretch * duration or self.seconds

    def pack_settings(self) -> PackSettings:
        """How the media were packed that the encoder knows."""
        return replace(
            self.packing or PackSettings(tuple(self.statistics)),
            size=self.short_side,
            fps=self.fps,
            sample_rate=self.sample_rate,
            flow_bound=self.flow_bound,
            region=self.region,
        )


def plain_clip_spec(content: dict[str, Any]) -> ClipSpec:
    """A `ClipSpec` from its plain form, as JSON holds it."""
    statistics = {
        name: Statistics(tuple(entry["mean"]), tuple(entry["std"])) for name, entry in content["statistics"].items()
    }
    packing = content.get("packing")
    plain = {
        "statistics": statistics,
        "region": plain_region(content.get("region")),
        "packing": None if packing is None else plain_settings(packing),
    }
    return ClipSpec(**content | plain)


def check_packing(spec: ClipSpec, index: Index) -> None:
    """`RequestError` where shards were packed unlike those that a model of this `spec` was trained on."""
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
