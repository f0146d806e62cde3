"""Members of one clip: content by suffix, stored facts, and moments that add up to the statistics."""

import io
import json
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from modalgate.shards.media.container_io import open_media
from modalgate.shards.media.flow import dequantise_flow, quantise_flow
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.encode import EncodedClip, encode_clip
from modalgate.shards.packing.recording import Recording
from modalgate.shards.packing.sources import Source

STREAMS = ("rgb", "flow", "depth", "audio", "inertial")


@pytest.fixture(scope="module")
def streams(drifting: Callable, beep: Callable) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "rgb": drifting(10, 32, 48),
        "flow": generator.normal(0, 6, (10, 2, 32, 48)).astype(np.float32),
        "depth": generator.integers(0, 65536, (10, 32, 48)).astype(np.uint16),
        "audio": beep(1.0),
        "inertial": generator.normal(size=(50, 6)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def clip(streams: dict[str, np.ndarray]) -> EncodedClip:
    settings = PackSettings(modalities=STREAMS, fps=10.0, gop=4)
    source = Source("a", {"video": Path("films/a.mov")}, {"label": "x"})
    return encode_clip(source, "a-003", Recording(90.0, 1.0, streams, {"inertial": 50.0}), settings)


def test_members(clip: EncodedClip) -> None:
    assert set(clip.members) == {"rgb.mp4", "flow.mp4", "depth.mkv", "audio.wav", "inertial.npy", "json"}
    assert (clip.key, clip.group, clip.duration) == ("a-003", "a", 1.0)


def test_facts(clip: EncodedClip, streams: dict[str, np.ndarray]) -> None:
    content = json.loads(clip.members["json"])
    facts = content.pop("modalities")
    assert content == {
        "source": "a.mov", "start": 90.0, "fps": 10.0, "duration": 1.0, "labels": {"label": "x"}, "group": "a"
    }  # fmt: skip
    assert facts["flow"]["bound"] == 14.0
    assert facts["depth"]["unit"] == "millimetre"
    assert facts["inertial"]["rate"] == 50.0
    for name, suffix in zip(STREAMS, ("rgb.mp4", "flow.mp4", "depth.mkv", "audio.wav", "inertial.npy"), strict=True):
        assert facts[name]["crc32"] == zlib.crc32(clip.members[suffix])
        assert facts[name]["length"] == len(streams[name])


def test_h264_form(clip: EncodedClip) -> None:
    """What the fast decoder relies on: yuv420p, no reordering, a key frame every `gop` frames."""
    for suffix, size in (("rgb.mp4", (48, 32)), ("flow.mp4", (48, 64))):
        with open_media(io.BytesIO(clip.members[suffix])) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.pix_fmt, stream.codec_context.has_b_frames) == ("yuv420p", False)
            assert (stream.codec_context.width, stream.codec_context.height) == size
            assert stream.average_rate == 10
            frames = list(container.decode(stream))
        keys = [number for number, frame in enumerate(frames) if frame.key_frame]
        assert len(frames) == 10
        assert max(np.diff([*keys, 10])) <= 4


def test_lossless_members(clip: EncodedClip, streams: dict[str, np.ndarray]) -> None:
    with av.open(io.BytesIO(clip.members["depth.mkv"])) as container:
        depth = np.stack([frame.to_ndarray() for frame in container.decode(video=0)])
    np.testing.assert_array_equal(depth, streams["depth"])
    np.testing.assert_array_equal(np.load(io.BytesIO(clip.members["inertial.npy"])), streams["inertial"])
    with wave.open(io.BytesIO(clip.members["audio.wav"])) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        sound = np.frombuffer(file.readframes(16000), "<i2") / 32767
    np.testing.assert_allclose(sound, streams["audio"], atol=0.5 / 32767 + 1e-7)


def test_moments(clip: EncodedClip, streams: dict[str, np.ndarray]) -> None:
    """Against the plain mean and standard deviation of the stored values."""
    values = {
        "rgb": streams["rgb"].reshape(-1, 3),
        "flow": dequantise_flow(quantise_flow(streams["flow"], 14.0), 14.0).transpose(0, 2, 3, 1).reshape(-1, 2),
        "depth": streams["depth"].reshape(-1, 1),
        "audio": streams["audio"].reshape(-1, 1),
        "inertial": streams["inertial"],
    }
    for name, rows in values.items():
        moments = clip.moments[name] + clip.moments[name]
        wide = rows.astype(np.float64)
        assert moments.count == 2 * len(rows)
        mean = moments.total / moments.count
        np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.sqrt(moments.squares / moments.count - mean**2), wide.std(axis=0), rtol=1e-5)


def test_same_piece_same_bytes(clip: EncodedClip, streams: dict[str, np.ndarray]) -> None:
    settings = PackSettings(modalities=STREAMS, fps=10.0, gop=4)
    source = Source("a", {"video": Path("films/a.mov")}, {"label": "x"})
    again = encode_clip(source, "a-003", Recording(90.0, 1.0, streams, {"inertial": 50.0}), settings)
    assert again.members == clip.members
