"""Binary factors of ImpactWorld, the streams that carry them, class tables and corruption laws.

A class is a tuple of bits. A stream shows the bits that it carries; what it shows of a class is the class's *symbol*
in that stream. The streams that are corrupted in a clip form a pattern z, drawn from a law.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, choice_error

Flow = Literal["sensor", "derived"]

# Words for the two values of each bit. C is the bit of `strike`. S and C are synergies: they need picture and sound.
WORDS: dict[str, tuple[str, str]] = {
    "V": ("vertical", "horizontal"),
    "A": ("short", "long"),
    "Z": ("recedes", "approaches"),
    "M": ("left", "right"),
    "P": ("small", "large"),
    "T": ("slow", "fast"),
    "S": ("prompt", "late"),
    "C": ("pass", "contact"),
}
CARRIED: dict[str, str] = {"rgb": "VMPT", "flow": "MT", "depth": "ZMPTC", "audio": "APTSC"}
# Sound shows these only together with a picture: alone, it has no time reference.
CLOCKED = "SC"


@dataclass(frozen=True)
class Preset:
    """A table of equally likely classes.

    - `bits`: names of the table's columns.
    - `classes`: class names.
    - `table`: `table[k]` holds the bits of class `classes[k]`.
    - `streams`: streams of a world. Flow is one of them if a sensor measures it.
    - `boards`: the wall is made of boards. Their angle and width look the same in picture and distance, throughout
      the clip.
    - `fixed`: all clips have the same camera, and so the same wall.
    - `signs`: bits of which a violent clip shows the majority. Empty if there is no such second label.
    """

    bits: str
    classes: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    streams: tuple[str, ...]
    boards: bool = False
    fixed: bool = False
    signs: str = ""

    @property
    def violent(self) -> NDArray[np.bool_]:
        """(K,) True for violent classes."""
        shown = np.asarray(self.table)[:, [self.bits.index(bit) for bit in self.signs]]
        return 2 * shown.sum(axis=1) > len(self.signs)


def _factorial(
    bits: str, streams: tuple[str, ...], *, boards: bool = False, fixed: bool = False, signs: str = ""
) -> Preset:
    """Returns a preset with every combination of `bits`, named by their words."""
    table = tuple(product((0, 1), repeat=len(bits)))
    names = tuple("_".join(WORDS[bit][value] for bit, value in zip(bits, row, strict=True)) for row in table)
    return Preset(bits, names, table, streams, boards, fixed, signs)


# Kinds of impact12 as V A Z M S. `wood` is the norm; every other kind differs from it in one way.
_KINDS = {
    "wood": (0, 0, 0, 1, 0),
    "metal": (0, 1, 0, 1, 0),
    "left": (0, 0, 0, 0, 0),
    "near": (0, 0, 1, 1, 0),
    "late": (0, 0, 0, 1, 1),
    "painted": (1, 0, 0, 1, 0),
}
_SIZES = {"tap": 0, "slam": 1}
_ALL = ("rgb", "flow", "depth", "audio")
_THREE = ("rgb", "depth", "audio")

PRESETS: dict[str, Preset] = {
    "impact12": Preset(
        "VAZMPS",
        tuple(f"{kind}_{size}" for kind in _KINDS for size in _SIZES),
        tuple((*kind[:4], size, kind[4]) for kind in _KINDS.values() for size in _SIZES.values()),
        _ALL,
    ),
    "strike": Preset("C", ("contact", "pass"), ((1,), (0,)), _ALL),
    "impact32": _factorial("VAZMS", _ALL),
    "chorus": _factorial("PT", _THREE),
    "solo": _factorial("VAZ", _THREE),
    "place": _factorial("VAZ", _THREE, boards=True),
    "duet": _factorial("S", _ALL),
    "melee": _factorial("MPA", _THREE, fixed=True, signs="MPA"),
}


def preset_named(name: str) -> Preset:
    """Returns the preset `name`. Raises `RequestError` with the nearest name if there is none."""
    if name not in PRESETS:
        raise choice_error("preset", name, PRESETS)
    return PRESETS[name]


def ordered(streams: Collection[str]) -> tuple[str, ...]:
    """Returns `streams` in the fixed order rgb, flow, depth, audio."""
    return tuple(stream for stream in CARRIED if stream in streams)


def carried_bits(preset: Preset, stream: str, subset: Collection[str], *, late: bool = False) -> str:
    """Returns the table's bits that `stream` shows to an observer of `subset`.

    The timing of a sound counts only together with a picture. It never counts for `late` fusion, which does not
    compare the two in time.
    """
    clocked = stream == "audio" and (late or not set(subset) - {"audio"})
    return "".join(b for b in preset.bits if b in CARRIED[stream] and not (clocked and b in CLOCKED))


def symbols(preset: Preset, stream: str, subset: Collection[str], *, late: bool = False) -> NDArray[np.int64]:
    """Returns the symbol (K,) of every class in `stream`. Classes that look the same in it have equal numbers."""
    shown = [preset.bits.index(bit) for bit in carried_bits(preset, stream, subset, late=late)]
    rows = np.asarray(preset.table)[:, shown]
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1) if shown else np.zeros(len(rows), np.int64)


@dataclass(frozen=True)
class Law:
    """How streams are corrupted, and how reliable the gate's hint is.

    - `name`: `independent` (each with probability `rho`), `spotlight` (all but one) or `one_bad` (exactly one). The
      exception is uniform over the streams.
    - `rho`: probability of corruption for `independent`.
    - `quality`: probability that q, the hint given only to the gate, is true for a stream. 1: always true; 0.5: no
      information.

    Raises `RequestError` for an unknown law or a probability outside [0, 1].
    """

    name: Literal["independent", "spotlight", "one_bad"] = "independent"
    rho: float = 0.0
    quality: float = 1.0

    def __post_init__(self) -> None:
        """Checks name and probabilities."""
        if self.name not in ("independent", "spotlight", "one_bad"):
            raise choice_error("corruption law", self.name, ("independent", "spotlight", "one_bad"))
        for what, value in (("rho", self.rho), ("quality", self.quality)):
            if not 0 <= value <= 1:
                raise RequestError(f"{what} is {value}: give a probability from 0 to 1")

    def patterns(self, streams: Collection[str]) -> list[tuple[Mapping[str, int], float]]:
        """Returns every possible z over `streams` (1 corrupted, 0 clean) with its probability."""
        names = ordered(streams)
        if self.name == "independent":
            rows = [
                (row, float(np.prod([self.rho if bad else 1 - self.rho for bad in row])))
                for row in product((0, 1), repeat=len(names))
            ]
        else:
            odd = 1 if self.name == "one_bad" else 0
            rows = [
                (tuple(odd if position == one else 1 - odd for position in range(len(names))), 1 / len(names))
                for one in range(len(names))
            ]
        return [(dict(zip(names, row, strict=True)), chance) for row, chance in rows if chance > 0]

    def draw(self, rng: np.random.Generator, streams: Collection[str]) -> dict[str, int]:
        """Draws one z over `streams`. Always consumes four numbers, so an additional stream changes no other."""
        names, chance = ordered(streams), rng.random(len(CARRIED))
        if self.name == "independent":
            by_stream = dict(zip(CARRIED, chance, strict=True))
            return {name: int(by_stream[name] < self.rho) for name in names}
        one = names[int(chance[0] * len(names))]
        return {name: int((name == one) == (self.name == "one_bad")) for name in names}
