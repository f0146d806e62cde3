"""Render a scene of ImpactWorld as its four sensors record it.

A disc drifts across a wall and strikes the floor once per period, with a ring at every contact. In `strike`, two
discs meet or seem to meet (Sekuler, Sekuler and Lau, "Sound alters visual motion perception", Nature 1997). In
`place`, the wall is made of boards, visible in both picture and distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .factors import preset_named
from .scene import Scene, draw_scene, generator

SIZE = 48
FPS = 16
FRAMES = 48
SAMPLE_RATE = 8000
DEPTH_MILLIMETRES = 4000
_SAMPLES = FRAMES * SAMPLE_RATE // FPS
_SECONDS = FRAMES / FPS
# Energy of one contact at gain 1, the same for every ring: loudness reveals neither material nor size. The loudest
# clip, at gain 2, stays below full scale.
_ENERGY = 3.0
_LONGEST_RING = 0.6
# How much boards shade the wall, and how far they stand out. Units: black to white, and zero to the farthest
# distance.
_SHADE, _RELIEF = 0.12, 0.05

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """What the sensors recorded. A stream that the scene lacks is None.

    - `rgb`: (48, 48, 48, 3) uint8 at 16 fps.
    - `depth`: (48, 48, 48) uint16 in millimetres.
    - `flow`: (48, 2, 48, 48) float32 in pixel/frame, dx then dy. Entry t is the motion from frame t to t + 1.
    - `audio`: (24000,) float32 in [-1, 1] at 8 kHz, 500 samples per frame.
    """

    rgb: NDArray[np.uint8] | None
    depth: NDArray[np.uint16] | None
    flow: Floats | None
    audio: Floats | None


@dataclass(frozen=True)
class _Disc:
    """Path of one disc.

    - `x`, `y`: centre (T + 1,) in pixels.
    - `radius`: pixels.
    - `depth`: distance (T,) in [0, 1].
    - `wraps`: it leaves on one side and enters on the other.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: float
    depth: NDArray[np.float64]
    wraps: bool

    def offsets(self) -> tuple[Floats, Floats, Floats]:
        """Returns dx (T, 1, W) and dy (T, H, 1) from the centre to every pixel, and the distance (T, H, W)."""
        grid = np.arange(SIZE)
        across = grid - self.x[:-1, None]
        if self.wraps:
            across = (across + SIZE / 2) % SIZE - SIZE / 2
        dx = across[:, None, :].astype(np.float32)
        dy = (grid - self.y[:-1, None])[:, :, None].astype(np.float32)
        return dx, dy, np.sqrt(dx * dx + dy * dy)


def render(scene: Scene) -> Clip:
    """Renders `scene`, sensor noise included. The result is the same to the last bit every time."""
    if scene.twin == "order":
        return _without_order(scene)
    heard = far = scene
    if scene.twin in ("synchrony", "alignment"):
        heard = replace(scene, phase0=float(generator(scene.seed, scene.clip, "twin").random()))
    if scene.twin == "pairing":
        other = int(generator(scene.seed, scene.clip, "twin").integers(2**62, 2**63))
        far = replace(draw_scene(scene.preset, scene.seed, other, streams=scene.shown), shown=scene.shown)
    return Clip(
        rgb=_rgb(scene) if "rgb" in scene.shown else None,
        depth=_depth(far) if "depth" in scene.shown else None,
        flow=_flow(scene) if "flow" in scene.shown else None,
        audio=_audio(heard) if "audio" in scene.shown else None,
    )


def _symmetric(scene: Scene) -> bool:
    """Whether the twin looks and sounds the same backwards."""
    return scene.twin in ("direction", "alignment")


def _without_order(scene: Scene) -> Clip:
    """Renders the twin "order": the middle seconds of three clips that differ only in place, phase and distance."""
    draws = generator(scene.seed, scene.clip, "twin")
    parts = []
    for _ in range(round(_SECONDS)):
        x0, phase0, depth0 = draws.uniform(0, 48), draws.random(), draws.uniform(0.35, 0.65)
        parts.append(render(replace(scene, twin="", x0=float(x0), phase0=float(phase0), depth0=float(depth0))))

    def joined(name: str, rate: int) -> NDArray | None:
        streams = [getattr(part, name) for part in parts]
        return None if streams[0] is None else np.concatenate([stream[rate : 2 * rate] for stream in streams])

    return Clip(joined("rgb", FPS), joined("depth", FPS), joined("flow", FPS), joined("audio", SAMPLE_RATE))


def _discs(scene: Scene, stream: str) -> tuple[_Disc, ...]:
    """Returns the discs as `stream` shows them, the farther one first."""
    if scene.preset == "strike":
        return _crossing(scene, stream)
    bits, u, time = scene.factors(stream), scene.u, np.arange(FRAMES + 1) / FPS
    if scene.twin == "pace":
        time = np.full_like(time, _SECONDS / 2)
    radius = body_radius(scene, bits)
    floor = 42.0
    if stream == "flow":
        # Flow does not carry the size: its disc has an independent radius and height.
        radius, floor = 4 + 4.2 * u[6], 38 + 8 * u[7]
    period = strike_period(scene, bits)
    phase = (time / period + scene.phase0) % 1
    lift = np.where(phase < 0.7, np.sin(np.pi / 2 * phase / 0.7), np.cos(np.pi / 2 * (phase - 0.7) / 0.3))
    if _symmetric(scene):
        lift = np.sin(np.pi * phase)
    way = 1 if bits["M"] else -1
    pace = (-1 if bits["Z"] else 1) * (0.09 + 0.02 * u[4])
    return (
        _Disc(
            x=(scene.x0 + way * (14 + 8 * u[2]) * time) % SIZE,
            y=floor - radius - lift * (12 + 6 * u[3]),
            radius=radius,
            depth=scene.depth0 + pace * (time[:-1] - _SECONDS / 2),
            wraps=True,
        ),
    )


def body_radius(scene: Scene, bits: dict[str, int]) -> float:
    """Returns the radius in pixels of the body with these bits."""
    return 7 + 1.2 * scene.u[0] if bits["P"] else 4 + scene.u[0]


def strike_period(scene: Scene, bits: dict[str, int]) -> float:
    """Returns the seconds between contacts with these bits."""
    return 0.45 + 0.12 * scene.u[1] if bits["T"] else 0.75 + 0.20 * scene.u[1]


def _crossing(scene: Scene, stream: str) -> tuple[_Disc, ...]:
    """Returns two equal discs that cross at the first moment. Only their depths distinguish contact from pass."""
    u, time = scene.u, np.arange(FRAMES + 1) / FPS
    radius = 4 + 2 * (u[6] if stream == "flow" else u[0])
    centre, height = SIZE / 3 + scene.x0 / 3, 12 + 24 * scene.phase0
    travel = (14 + 6 * u[2]) * (time - scene.moments[0])
    apart = 0.0 if scene.factors(stream)["C"] else 0.12 + 0.08 * u[4]
    nearer = 1 if scene.bits["Z"] else -1
    return tuple(
        _Disc(
            x=centre + way * travel,
            y=np.full(FRAMES + 1, height),
            radius=radius,
            depth=np.full(FRAMES, scene.depth0 - way * nearer * apart / 2),
            wraps=False,
        )
        for way in (-nearer, nearer)
    )


def _background(scene: Scene) -> Floats:
    """Returns colours (48, 48, 3) in [0.15, 0.50]: boards of one colour, or a smoothly interpolated 7 x 7 grid."""
    draws = np.random.Generator(
        np.random.Philox(key=scene.seed if preset_named(scene.preset).fixed else scene.background)
    )
    if preset_named(scene.preset).boards:
        shade = _SHADE * _boards(draws)
        return shade[..., None] + draws.uniform(0.15 + _SHADE, 0.50 - _SHADE, 3).astype(np.float32)
    colours = draws.uniform(0.15, 0.50, (7, 7, 3))
    place = np.linspace(0, 6, SIZE)
    cell = np.minimum(place.astype(int), 5)
    share = (place - cell) ** 2 * (3 - 2 * (place - cell))
    rows = colours[cell] + (colours[cell + 1] - colours[cell]) * share[:, None, None]
    return (rows[:, cell] + (rows[:, cell + 1] - rows[:, cell]) * share[:, None]).astype(np.float32)


def _boards(draws: np.random.Generator) -> Floats:
    """Returns (48, 48) in [-1, 1]: waves at any angle, 6 to 18 pixels long."""
    angle, phase = draws.uniform(0, np.pi), draws.uniform(0, 2 * np.pi)
    length = np.exp(draws.uniform(np.log(6), np.log(18)))
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase).astype(np.float32)


def _rgb(scene: Scene) -> NDArray[np.uint8]:
    """Renders a striped disc over the background. In `strike`, the discs are plain and equal: none is in front."""
    colour = (0.55 + 0.45 * np.asarray(scene.hue)).astype(np.float32)
    background = _background(scene)
    cover, level = np.zeros((FRAMES, SIZE, SIZE), np.float32), np.ones((1, 1, 1), np.float32)
    for disc in _discs(scene, "rgb"):
        dx, dy, distance = disc.offsets()
        cover = np.maximum(cover, np.clip(disc.radius + 0.5 - distance, 0, 1))
        if scene.preset != "strike":
            along = dy if scene.factors("rgb")["V"] else dx
            level = np.where(along % 4 < 2, np.float32(1), np.float32(0.35))
    picture = background + cover[..., None] * (level[..., None] * colour - background)
    grain = generator(scene.seed, scene.clip, "noise rgb").standard_normal(picture.shape, np.float32)
    picture += np.float32(0.02) * grain
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _depth(scene: Scene) -> NDArray[np.uint16]:
    """Renders the distance of the wall, and of the discs in front of it."""
    wall = np.broadcast_to((0.9 - 0.1 * np.arange(SIZE) / SIZE).astype(np.float32)[:, None], (SIZE, SIZE))
    if preset_named(scene.preset).boards:
        # What stands out is brighter.
        wall = wall - _RELIEF * _boards(np.random.Generator(np.random.Philox(key=scene.background)))
    distance = np.broadcast_to(wall, (FRAMES, SIZE, SIZE)).copy()
    for disc in _discs(scene, "depth"):
        inside = disc.offsets()[2] <= disc.radius
        np.copyto(distance, disc.depth[:, None, None].astype(np.float32), where=inside)
    grain = generator(scene.seed, scene.clip, "noise depth").standard_normal(distance.shape, np.float32)
    distance += np.float32(0.01) * grain
    return np.rint(np.maximum(distance, 0) * DEPTH_MILLIMETRES).astype(np.uint16)


def _flow(scene: Scene) -> Floats:
    """Returns the motion to the next frame inside the discs, 0 outside, as a flow sensor would measure it."""
    flow = np.zeros((FRAMES, 2, SIZE, SIZE), np.float32)
    for disc in _discs(scene, "flow"):
        inside = disc.offsets()[2] <= disc.radius
        step = np.diff(disc.x)
        if disc.wraps:
            step = (step + SIZE / 2) % SIZE - SIZE / 2
        for channel, motion in enumerate((step, np.diff(disc.y))):
            np.copyto(flow[:, channel], motion[:, None, None].astype(np.float32), where=inside)
    return flow


def contact_times(scene: Scene) -> NDArray[np.float64]:
    """Returns the times in seconds of the contacts that are heard, also of those before the clip that still ring."""
    bits = scene.factors("audio")
    if scene.preset == "strike":
        return np.array([scene.moments[0 if bits["C"] else 1]])
    period = strike_period(scene, bits)
    times = (np.arange(-2, 11, dtype=np.float64) - scene.phase0 + bits["S"] / 2) * period
    # Includes every ring that is still audible: a silent beginning would distinguish the first second from the
    # others. A ring that swells is audible before its contact.
    late = _LONGEST_RING / 2 if _symmetric(scene) else 0
    return times[(times >= -_LONGEST_RING) & (times < _SECONDS + late)]


def _audio(scene: Scene) -> Floats:
    """Renders a ring of equal energy at every contact, then applies gain and adds the noise floor."""
    bits, u = scene.factors("audio"), scene.u
    if scene.preset == "strike":
        pitch, decay, partials, length = 120 + 100 * u[5], 0.04, (1.0,), 0.25
    else:
        pitch = 300 + 100 * u[5] if bits["P"] else 700 + 200 * u[5]
        if scene.graded:
            pitch = 900 * (4 / body_radius(scene, bits)) ** 1.3
        decay, partials = (0.25, (1.0, 2.76, 5.4)) if bits["A"] else (0.03, (1.0, 2.57, 4.8))
        length = min(_LONGEST_RING, 6 * decay)
    sound = np.zeros(_SAMPLES)
    for moment in contact_times(scene):
        first = int(np.ceil((moment - (length / 2 if _symmetric(scene) else 0)) * SAMPLE_RATE))
        time = np.arange(first, first + int(length * SAMPLE_RATE)) / SAMPLE_RATE - moment
        ring = _ring(time, pitch, decay, partials, scene.phases)[max(-first, 0) :]
        begin = max(first, 0)
        end = min(begin + len(ring), _SAMPLES)
        sound[begin:end] += ring[: max(end - begin, 0)]
    hiss = generator(scene.seed, scene.clip, "noise audio").standard_normal(_SAMPLES)
    return np.clip(scene.gain * sound + scene.floor * hiss, -1, 1).astype(np.float32)


def _ring(
    time: NDArray[np.float64], pitch: float, decay: float, partials: Sequence[float], phases: Sequence[float]
) -> NDArray[np.float64]:
    """Returns partials at `time` seconds after the contact, which decay away from it, normalised to equal energy."""
    ring = np.zeros(len(time))
    for number, (ratio, phase) in enumerate(zip(partials, phases, strict=False)):
        if pitch * ratio <= 0.45 * SAMPLE_RATE:
            fade = np.exp(-np.abs(time) * (1 + number / 2) / decay)
            ring += fade * np.sin(2 * np.pi * pitch * ratio * time + phase) / (number + 1)
    return ring * float(np.sqrt(_ENERGY / (ring @ ring)))
