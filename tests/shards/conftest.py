"""Tiny media with known content: a drifting texture, a beep, and folders of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import MODALITIES
from numpy.typing import NDArray

RATE = 16000


@pytest.fixture
def own_table() -> Iterator[None]:
    """What a test declares is forgotten after it."""
    before = dict(MODALITIES)
    yield
    MODALITIES.clear()
    MODALITIES.update(before)


@pytest.fixture(scope="session")
def drifting() -> Callable[..., NDArray[np.uint8]]:
    """`drifting(frames, height, width, dx, dy, seed)`: a smooth texture moving by (dx, dy) pixel/frame, RGB."""

    def build(frames: int, height: int = 48, width: int = 64, dx: int = 1, dy: int = 0, seed: int = 0) -> NDArray:
        generator = np.random.default_rng(seed)
        margin = frames * max(abs(dx), abs(dy))
        noise = generator.random((height + 2 * margin, width + 2 * margin, 3)).astype(np.float32)
        smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5))
        canvas = cv2.normalize(smooth, np.empty(0), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        tops, lefts = margin - dy * np.arange(frames), margin - dx * np.arange(frames)
        return np.stack([canvas[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)])

    return build


@pytest.fixture(scope="session")
def beep() -> Callable[..., NDArray[np.float32]]:
    """`beep(seconds, at, length)`: silence but for a 1 kHz tone of `length` s at `at` s, sampled at 16 kHz."""

    def build(seconds: float, at: float = 0.0, length: float | None = None, rate: int = RATE) -> NDArray[np.float32]:
        times = np.arange(round(seconds * rate)) / rate
        sounding = (times >= at) & (times < at + (seconds if length is None else length))
        return (0.5 * np.sin(2 * np.pi * 1000 * times) * sounding).astype(np.float32)

    return build


@pytest.fixture(scope="session")
def delayed() -> Callable[[Path, Path, float], Path]:
    """`delayed(source, target, seconds)`: the same packets, all of them later, as a recorder that was joined late."""

    def remux(source: Path, target: Path, seconds: float) -> Path:
        with av.open(str(source)) as read, av.open(str(target), "w") as written:
            streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
            for packet in read.demux():
                if packet.dts is not None:
                    shift, index = round(seconds / packet.time_base), packet.stream.index
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[index]
                    written.mux(packet)
        return target

    return remux


@pytest.fixture(scope="session")
def small() -> Callable[..., PackSettings]:
    """Settings for tiny clips; keyword arguments replace fields."""

    def build(**changes: object) -> PackSettings:
        return PackSettings(**({"size": 32, "fps": 10.0, "samples_per_shard": 4} | changes))  # pyright: ignore

    return build


@pytest.fixture(scope="session")
def film(drifting: Callable[..., NDArray[np.uint8]]) -> Callable[..., Path]:
    """`film(path, seconds, sound, rate, **drift)`: writes a drifting texture as H.264, makes the folders it needs."""

    def write(
        path: Path,
        seconds: float = 1.0,
        sound: NDArray[np.float32] | None = None,
        rate: float = 10.0,
        **drift: int,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, drifting(round(seconds * rate), **drift), rate, sound=sound, sound_codec="aac")
        return path

    return write


@pytest.fixture(scope="session")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    film: Callable[..., Path],
    beep: Callable[..., NDArray[np.float32]],
    drifting: Callable[..., NDArray[np.uint8]],
) -> Path:
    """Six recordings with labels: all have video and depth, the even ones a tone, number 1 a silent track."""
    root = tmp_path_factory.mktemp("recordings")
    (root / "depth").mkdir()
    (root / "inertial").mkdir()
    lines = ["video,depth,inertial,label,group"]
    generator = np.random.default_rng(0)
    for number in range(6):
        sound = {0: beep(1.0), 1: np.zeros(RATE, np.float32)}.get(number if number == 1 else number % 2)
        film(root / "video" / f"c{number}.mp4", 1.0, sound, seed=number, dx=number % 3)
        millimetres = 500 + drifting(10, 32, 44, dx=number % 3, seed=9 - number)[..., 0].astype(np.uint16) * 217
        write_video(root / "depth" / f"c{number}.mkv", millimetres, 10, codec="ffv1", pixel_format="gray16le")
        np.save(root / "depth" / f"c{number}.truth.npy", millimetres)
        np.savetxt(root / "inertial" / f"c{number}.csv", generator.normal(size=(50, 6)), delimiter=",", header="x")
        label = "fight" if number < 3 else "calm"
        lines.append(f"video/c{number}.mp4,depth/c{number}.mkv,inertial/c{number}.csv,{label},g{number // 2}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root
