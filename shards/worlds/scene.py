"""One scene of ImpactWorld: its class, what each stream shows, and the nuisances all streams share."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import RequestError, choice_error
from .factors import CARRIED, WORDS, Law, ordered, preset_named

# The child streams of a clip's generator. Each fills its own stretch of the Philox counter, so drawing more from one
# moves none of the others: another corruption law, or one more stream, leaves scene and noise as they were.
CHILDREN = ("scene", "corruption", "quality", *(f"noise {stream}" for stream in CARRIED), "twin")
# Twins of a world, by the cue that they lack: a pretext task above chance on its twin has found a shortcut.
TWINS = {
    "order": "every second of a clip starts anew: no second comes before another",
    "direction": "bodies rise as they fall and rings swell as they fade: a clip and its reverse look alike",
    "pace": "nothing moves",
    "synchrony": "the sound's contacts keep their period, at a phase of their own",
    "pairing": "distances are of another scene than picture and sound, but for the label's own cue",
}


def generator(seed: int, clip: int, child: str) -> np.random.Generator:
    """The random stream `child` (one of `CHILDREN`) of clip `clip` in world `seed`."""
    key, counter = np.array([seed, clip], np.uint64), np.zeros(4, np.uint64)
    counter[3] = CHILDREN.index(child)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class Scene:
    """Everything a clip is rendered from.

    `label`: its class. `shown`: per stream, the class whose symbol it shows (the label's where clean). `z`: 1 where a
    stream is corrupted; `q`: the hint about z. `bits`: values of the factors outside the table. The nuisances:
    `u` eight uniforms (radius, period, speed, height, depth speed, pitch, flow radius, flow height); `x0` pixels;
    `phase0` of the strike period; `hue` RGB; `gain` and `floor` of the sound; `depth0` in [0, 1]; `phases` of the
    partials in radians; `background` seed; `moments`: the two times in seconds `strike` chooses from. `graded`:
    the pitch follows the body's size by degrees, as in pretraining. `twin`: one of `TWINS`, or empty.
    """

    preset: str
    seed: int
    clip: int
    label: int
    shown: dict[str, int]
    z: dict[str, int]
    q: dict[str, int]
    bits: dict[str, int]
    u: tuple[float, ...]
    x0: float
    phase0: float
    hue: tuple[float, ...]
    gain: float
    floor: float
    depth0: float
    phases: tuple[float, ...]
    background: int
    moments: tuple[float, float]
    graded: bool = False
    twin: str = ""

    def factors(self, stream: str) -> dict[str, int]:
        """The value of every bit as `stream` shows it."""
        preset = preset_named(self.preset)
        return self.bits | dict(zip(preset.bits, preset.table[self.shown[stream]], strict=True))


def draw_scene(
    preset: str,
    seed: int,
    clip: int,
    law: Law | None = None,
    *,
    streams: Collection[str] | None = None,
    graded: bool = False,
    twin: str = "",
) -> Scene:
    """Scene of clip `clip` in world `seed`, of the preset's own streams unless `streams` names them.

    A corrupted stream shows a class drawn from all K, the label's included. Raises `RequestError` for an unknown
    preset or twin, and for a twin of `strike`, whose discs neither rise nor repeat.
    """
    if twin and twin not in TWINS:
        raise choice_error("twin", twin, TWINS)
    if twin and preset == "strike":
        raise RequestError("the preset 'strike' has no twins: give another preset")
    chosen, law = preset_named(preset), law or Law()
    names = ordered(chosen.streams if streams is None else streams)
    rng = generator(seed, clip, "scene")
    label = int(rng.integers(len(chosen.classes)))
    bits = {bit: int(value) for bit, value in zip(WORDS, rng.integers(2, size=len(WORDS)), strict=True)}
    # A sound half a period late means nothing unless it is asked about.
    bits = {bit: 0 if bit == "S" else value for bit, value in bits.items() if bit not in chosen.bits}
    spoiled = generator(seed, clip, "corruption")
    z = law.draw(spoiled, names)
    # Whole classes, for every stream, used or not: bits drawn one by one would show symbols no class has.
    other = dict(zip(CARRIED, spoiled.integers(len(chosen.classes), size=len(CARRIED)), strict=True))
    lies = dict(zip(CARRIED, generator(seed, clip, "quality").random(len(CARRIED)) >= law.quality, strict=True))
    return Scene(
        preset=preset,
        seed=seed,
        clip=clip,
        label=label,
        shown={name: int(other[name]) if z[name] else label for name in names},
        z=z,
        q={name: z[name] ^ int(lies[name]) for name in names},
        bits=bits,
        u=_floats(rng.random(8)),
        x0=float(rng.uniform(0, 48)),
        phase0=float(rng.random()),
        hue=_floats(rng.random(3)),
        gain=float(10 ** rng.uniform(-0.3, 0.3)),
        floor=float(rng.uniform(0.003, 0.02)),
        depth0=float(rng.uniform(0.35, 0.65)),
        phases=_floats(rng.uniform(0, 2 * np.pi, 4)),
        background=int(rng.integers(2**53)),
        moments=_draw_moments(rng),
        graded=graded,
        twin=twin,
    )


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _draw_moments(rng: np.random.Generator) -> tuple[float, float]:
    """A pair in [.6, 2.4] s more than .35 s apart. Both have one marginal, as either could have come first."""
    while True:
        first, second = (float(value) for value in rng.uniform(0.6, 2.4, 2))
        if abs(first - second) > 0.35:
            return first, second


def scene_to_json(scene: Scene) -> str:
    """One line of JSON; floats keep every digit, so the scene reads back equal."""
    return json.dumps(asdict(scene), separators=(",", ":"))


def scene_from_json(line: str) -> Scene:
    """The scene a line of `scenes.jsonl` holds."""
    content: dict[str, Any] = json.loads(line)
    content |= {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return Scene(**content)
