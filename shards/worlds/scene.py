"""One scene of ImpactWorld: its class, what each stream shows, and the nuisances that all streams share."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import RequestError, choice_error
from .factors import CARRIED, WORDS, Law, ordered, preset_named

# Random streams of a clip's generator. Each uses its own range of the Philox counter, so more draws from one change
# no other: with another corruption law, or an additional stream, scene and noise stay the same.
CHILDREN = ("scene", "corruption", "quality", *(f"noise {stream}" for stream in CARRIED), "twin")
# Twins of a world, by the cue that they lack. A pretext task that is above chance on its twin has found a shortcut.
TWINS = {
    "order": "the seconds of a clip are independent: none comes before another",
    "direction": "bodies rise as they fall and rings swell as they fade: a clip and its reverse look alike",
    "pace": "nothing moves",
    "synchrony": "the sound's contacts keep their period but have a random phase",
    "alignment": "those of direction and synchrony together: reversed sound fits a picture no less than sound does",
    "pairing": "distances come from another scene than picture and sound, except for the label's cue",
}


def generator(seed: int, clip: int, child: str) -> np.random.Generator:
    """Returns the random stream `child` (one of `CHILDREN`) of clip `clip` in world `seed`."""
    key, counter = np.array([seed, clip], np.uint64), np.zeros(4, np.uint64)
    counter[3] = CHILDREN.index(child)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class Scene:
    """Everything that a clip is rendered from.

    - `preset`, `seed`, `clip`: which scene it is.
    - `label`: its class.
    - `shown`: per stream, the class whose symbol it shows. The label where clean.
    - `z`: per stream, 1 if corrupted.
    - `q`: per stream, the hint about z.
    - `bits`: values of the factors outside the table.
    - `u`: eight uniforms for radius, period, speed, height, depth speed, pitch, flow radius and flow height.
    - `x0`: horizontal position in pixels.
    - `phase0`: phase of the strike period, in [0, 1).
    - `hue`: RGB.
    - `gain`, `floor`: of the sound.
    - `depth0`: distance in [0, 1].
    - `phases`: of the partials, in radians.
    - `background`: seed.
    - `moments`: the two times in seconds that `strike` chooses from.
    - `graded`: the pitch follows the body's size continuously, as in pretraining.
    - `twin`: one of `TWINS`, or empty.
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
        """Returns the value of every bit as `stream` shows it."""
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
    """Draws the scene of clip `clip` in world `seed`.

    - `law`: how streams are corrupted. Default: not at all.
    - `streams`: default those of the preset.
    - `graded`, `twin`: see `Scene`.

    A corrupted stream shows a class drawn from all K, the label included. Raises `RequestError` for an unknown preset
    or twin, and for a twin of `strike`, whose discs neither rise nor repeat.
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
    # A sound half a period late has no meaning unless the preset uses it.
    bits = {bit: 0 if bit == "S" else value for bit, value in bits.items() if bit not in chosen.bits}
    spoiled = generator(seed, clip, "corruption")
    z = law.draw(spoiled, names)
    # Whole classes, for every stream, used or not: bits drawn one by one would show symbols that no class has.
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
    """Draws two times in [0.6, 2.4] s that are more than 0.35 s apart. Both have the same marginal distribution."""
    while True:
        first, second = (float(value) for value in rng.uniform(0.6, 2.4, 2))
        if abs(first - second) > 0.35:
            return first, second


def scene_to_json(scene: Scene) -> str:
    """Returns the scene as one line of JSON. Floats keep every digit, so the scene reads back equal."""
    return json.dumps(asdict(scene), separators=(",", ":"))
