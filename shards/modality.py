"""The table of modalities: what a stream is, how it is stored and how its numbers are to be read."""

from dataclasses import dataclass
from typing import Literal

from .errors import choice_error

Kind = Literal["video", "audio", "signal"]


@dataclass(frozen=True)
class Modality:
    """One kind of stream.

    `kind`: `video` arrives as (T, C, H, W), `audio` as (N,), `signal` as (N, C).
    `suffix`: the shard member it is stored in, `KEY.<suffix>`.
    `rate`: default frames or samples per second a packed stream has; `None` keeps the source's.
    `unit`: what one step of the physical value means; `low`, `high`: the range a sane value lies in.
    """

    name: str
    kind: Kind
    channels: int
    suffix: str
    rate: float | None
    unit: str
    low: float
    high: float


MODALITIES: dict[str, Modality] = {
    "rgb": Modality("rgb", "video", 3, "rgb.mp4", None, "level", 0.0, 255.0),
    "flow": Modality("flow", "video", 2, "flow.mp4", None, "pixel/frame", -64.0, 64.0),
    "depth": Modality("depth", "video", 1, "depth.mkv", None, "millimetre", 0.0, 65535.0),
    "audio": Modality("audio", "audio", 1, "audio.wav", 16000.0, "amplitude", -1.0, 1.0),
    "inertial": Modality("inertial", "signal", 6, "inertial.npy", 50.0, "g and degree/s", -2000.0, 2000.0),
}


def modality(name: str) -> Modality:
    """The table's entry for `name`; `RequestError` with the nearest name otherwise."""
    if name not in MODALITIES:
        raise choice_error("modality", name, MODALITIES)
    return MODALITIES[name]


def declare(entry: Modality) -> None:
    """Adds a modality to the table, for a config that names one of its own."""
    MODALITIES[entry.name] = entry
