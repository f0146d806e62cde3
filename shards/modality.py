"""The table of modalities: shape, storage, rate and physical unit of each stream."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .errors import choice_error

Kind = Literal["video", "audio", "signal"]


@dataclass(frozen=True)
class Modality:
    """One kind of stream.

    - `kind`: `video` has shape (T, C, H, W), `audio` (N,), `signal` (N, C).
    - `channels`: C; 1 for audio.
    - `suffix`: the shard member that stores it is named `KEY.<suffix>`.
    - `rate`: default frames or samples per second of the packed stream. None: as in the source.
    - `unit`: physical unit of the values.
    - `low`, `high`: range of plausible values.
    - `flow_of`: for optical flow, the modality it is computed from. Empty for all others.
    - `vectors`: channels come in groups of three, the x, y and z axes of a worn sensor.
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
    """Returns the table entry for `name`. Raises `RequestError` with the nearest name if there is none."""
    if name not in MODALITIES:
        raise choice_error("modality", name, MODALITIES)
    return MODALITIES[name]


def shown_by(source: str, names: Iterable[str]) -> tuple[str, ...]:
    """Returns those of `names` that come from pictures of modality `source`: itself and its optical flow.

    >>> shown_by("rgb", ["rgb", "flow", "audio"])
    ('rgb', 'flow')
    """
    return tuple(name for name in names if source in (name, modality(name).flow_of))


def sources_of(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the modalities that must be recorded to obtain `names`. Flow is computed from its source.

    >>> sources_of(["flow", "rgb", "audio"])
    ('rgb', 'audio')
    """
    return tuple(dict.fromkeys(modality(name).flow_of or name for name in names))


def declare(entry: Modality) -> None:
    """Adds a modality to the table. Configs use it for modalities that they define themselves."""
    MODALITIES[entry.name] = entry
