"""The table of modalities: what a stream is, how it is stored and how its numbers are to be read."""

from collections.abc import Iterable
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
    `flow_of`: the modality between whose pictures it is the optical flow, empty for all others.
    `vectors`: the channels come in threes, along the x, y and z of a worn sensor.
    """

    name: str
    kind: Kind
    channels: int
    suffix: str
    rate: float | None
    unit: str
    low: float
    high: float
    flow_of: str = ""
    vectors: bool = False


MODALITIES: dict[str, Modality] = {
    "rgb": Modality("rgb", "video", 3, "rgb.mp4", None, "level", 0.0, 255.0),
    "flow": Modality("flow", "video", 2, "flow.mp4", None, "pixel/frame", -64.0, 64.0, flow_of="rgb"),
    "depth": Modality("depth", "video", 1, "depth.mkv", None, "millimetre", 0.0, 65535.0),
    "depth_flow": Modality(
        "depth_flow", "video", 2, "depth_flow.mp4", None, "pixel/frame", -64.0, 64.0, flow_of="depth"
    ),
    "audio": Modality("audio", "audio", 1, "audio.wav", 16000.0, "amplitude", -1.0, 1.0),
    "inertial": Modality(
        "inertial", "signal", 6, "inertial.npy", 50.0, "g and degree/s", -2000.0, 2000.0, vectors=True
    ),
}


def modality(name: str) -> Modality:
    """The table's entry for `name`; `RequestError` with the nearest name otherwise."""
    if name not in MODALITIES:
        raise choice_error("modality", name, MODALITIES)
    return MODALITIES[name]


def shown_by(source: str, names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that pictures of the modality `source` give: themselves, and the flow between them."""
    return tuple(name for name in names if source in (name, modality(name).flow_of))


def sources_of(names: Iterable[str]) -> tuple[str, ...]:
    """What modalities have to be recorded for `names`, each once: flow is made of its pictures."""
    return tuple(dict.fromkeys(modality(name).flow_of or name for name in names))


def declare(entry: Modality) -> None:
    """Adds a modality to the table, for a config that names one of its own."""
    MODALITIES[entry.name] = entry
