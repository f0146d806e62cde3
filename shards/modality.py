"""The table of modalities: shape, storage, rate and physical unit of each stream."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .errors import RequestError, choice_error

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


BUILT_IN = frozenset(MODALITIES)
# How members are stored by kind; colour pictures are `.mp4`.
SUFFIXES_OF = {"video": "mkv", "audio": "wav", "signal": "npy"}
CHANNELS_OF = {"video": (1, 3), "audio": (1,)}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DECLARED = re.compile(
    r"(?P<name>[^=]+)=(?P<kind>video|audio|signal)(:(?P<channels>\d{1,4}))?(@(?P<rate>\d+(\.\d+)?))?"
)
_FORM = "NAME=KIND, such as thermal=video, wide=video:3, mic2=audio or radar=signal:2@20 (channels, Hz)"


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
    """Adds a modality to the table of this process.

    Shards and bundles store the modalities declared for them. Reading them, also in another process, declares these
    again. Raises `RequestError` for a name that means something else, for a member that is not named after it, for
    channels that its kind cannot have, and for a signal without a rate.
    """
    name, known = entry.name, MODALITIES.get(entry.name)
    if known is not None and known != entry:
        raise RequestError(f"modality '{name}' is already known as {_described(known)}: give another name")
    if not _NAME.fullmatch(name) or name in ("video", "frames", "json"):
        raise RequestError(f"'{name}' cannot name a modality: give lower-case letters, digits and _, such as radar")
    if entry.kind not in SUFFIXES_OF or entry.suffix.split(".")[0] != name or entry.suffix.count(".") != 1:
        raise RequestError(f"modality '{name}' has kind '{entry.kind}' and member '{entry.suffix}': give {_FORM}")
    if entry.flow_of:
        fits = entry.kind == "video" and entry.channels == 2 and modality(entry.flow_of).kind == "video"
    else:
        fits = entry.channels >= 1 if entry.kind == "signal" else entry.channels in CHANNELS_OF[entry.kind]
    if not fits or not (0 < entry.rate < math.inf if entry.rate is not None else entry.kind != "signal"):
        raise RequestError(
            f"modality '{name}' cannot be {_described(entry)}: video has 1 channel (16 bits) or 3 (colour), audio 1, "
            "a signal any number and a rate in Hz"
        )
    MODALITIES[name] = entry


def plain_modality(text: str) -> Modality:
    """Returns the modality that `NAME=audio`, `NAME=video:CHANNELS` or `NAME=signal:CHANNELS@HZ` declares.

    Without channels, it has one. Raises `RequestError` for text of another form.

    >>> plain_modality("radar=signal:2@20").suffix
    'radar.npy'
    """
    found = _DECLARED.fullmatch(text.strip())
    if found is None or bool(found["rate"]) != (found["kind"] == "signal"):
        raise RequestError(f"'{text}' declares no modality: give {_FORM}")
    name, kind, channels = found["name"], found["kind"], int(found["channels"] or 1)
    colour = kind == "video" and channels == 3
    low, high = {"video": (0.0, 255.0 if colour else 65535.0), "audio": (-1.0, 1.0)}.get(kind, (-1e6, 1e6))
    suffix = f"{name}.{'mp4' if colour else SUFFIXES_OF[kind]}"
    rate = 16000.0 if kind == "audio" else float(found["rate"]) if found["rate"] else None
    return Modality(name, kind, channels, suffix, rate, "", low, high)  # pyright: ignore[reportArgumentType]


def declared_among(names: Iterable[str]) -> tuple[Modality, ...]:
    """Returns the entries of those of `names`, and of the pictures they are computed from, that were declared."""
    needed = [part for name in names for part in (modality(name).flow_of, name) if part]
    return tuple(MODALITIES[name] for name in dict.fromkeys(needed) if name not in BUILT_IN)


def _described(entry: Modality) -> str:
    plural = "s" if entry.channels != 1 else ""
    rate = f" at {entry.rate:g} Hz" if entry.rate else ""
    return f"{entry.kind} of {entry.channels} channel{plural}{rate}"
