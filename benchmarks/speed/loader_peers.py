"""The readers that `loader.py` compares, one per process: each reads the same windows of the same clips.

A window is 16 frames of 112 px as uint8, (T, C, H, W) or (T, H, W, C), and 1.28 s of mono sound at 16 kHz. All work
on one thread.
"""

import io
import json
import sys
import time
import wave
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import webdataset
from modalgate.shards.clips.windows import frame_times
from modalgate.shards.index.table import load_index
from modalgate.shards.stream import ClipRequest, ClipStream
from numpy.typing import NDArray

FRAMES, SIZE, SECONDS, RATE = 16, 112, 1.28, 16000
REQUEST = ClipRequest(("rgb", "audio"), 1, SECONDS, FRAMES, SIZE)
BATCH = 8

Window = tuple[str, float]
"""The key of a clip and where its window starts, in seconds."""
Pictures = NDArray[np.uint8] | torch.Tensor
Sound = NDArray[np.float32] | torch.Tensor
Clip = tuple[Pictures, Sound]


def instants(start: float) -> list[float]:
    return frame_times(np.array([start]), SECONDS, FRAMES)[0].tolist()


def small_square(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) with the shorter side scaled to 112 px, and its centre cut out."""
    height, width = frame.shape[:2]
    scale = SIZE / min(height, width)
    size = (max(round(width * scale), SIZE), max(round(height * scale), SIZE))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    top, left = (small.shape[0] - SIZE) // 2, (small.shape[1] - SIZE) // 2
    return np.asarray(small[top : top + SIZE, left : left + SIZE], np.uint8)


def small_squares(frames: torch.Tensor) -> torch.Tensor:
    """The same of (T, C, H, W)."""
    from torchvision.transforms import functional

    return functional.center_crop(functional.resize(frames, [SIZE], antialias=True), [SIZE, SIZE])


def read_pyav(path: str, start: float) -> Clip:
    """A data set class as tutorials write it: seek, decode up to the end of the window, scale what is needed."""
    with av.open(path) as container:
        video = container.streams.video[0]
        assert video.time_base is not None
        container.seek(int(start / video.time_base), stream=video)
        wanted, pictures = instants(start), []
        for frame in container.decode(video):
            assert frame.time is not None
            while len(pictures) < FRAMES and frame.time >= wanted[len(pictures)] - 1e-6:
                pictures.append(small_square(frame.to_ndarray(format="rgb24")))
            if len(pictures) == FRAMES:
                break
        pictures += [pictures[-1]] * (FRAMES - len(pictures))
        audio = container.streams.audio[0]
        assert audio.time_base is not None
        container.seek(int(start / audio.time_base), stream=audio)
        resampler = av.AudioResampler("fltp", "mono", RATE)
        pieces, first = [], None
        for frame in container.decode(audio):
            assert frame.time is not None
            first = frame.time if first is None else first
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
            if frame.time > start + SECONDS:
                break
    skip = round((start - (first or 0.0)) * RATE)
    return np.stack(pictures), np.concatenate(pieces)[skip : skip + round(SECONDS * RATE)]


def read_pytorchvideo(path: str, start: float) -> Clip:
    from pytorchvideo.data.encoded_video import EncodedVideo
    from torchaudio.functional import resample

    video = EncodedVideo.from_path(path, decoder="pyav")
    clip = video.get_clip(start, start + SECONDS)
    frames, sound = clip["video"], clip["audio"]
    video.close()
    taken = frames[:, torch.linspace(0, frames.shape[1] - 1, FRAMES).long()]
    native = av_rate(path)
    return small_squares(taken.transpose(0, 1)).byte(), resample(sound, native, RATE)


def av_rate(path: str) -> int:
    with av.open(path) as container:
        return container.streams.audio[0].codec_context.sample_rate


def read_torchcodec(path: str, start: float) -> Clip:
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    video = VideoDecoder(path, seek_mode="approximate", num_ffmpeg_threads=1)
    end = video.metadata.end_stream_seconds or start + SECONDS
    frames = video.get_frames_played_at([min(instant, end - 1e-3) for instant in instants(start)]).data
    audio = AudioDecoder(path, sample_rate=RATE, num_channels=1)
    return small_squares(frames), audio.get_samples_played_in_range(start, start + SECONDS).data[0]


def read_files(scratch: Path, read: Callable[[str, float], Clip], windows: list[Window]) -> Iterator[Clip]:
    files = json.loads((scratch / "files.json").read_text())
    for key, start in windows:
        yield read(files[key], start)


def read_jpeg_shards(scratch: Path, windows: list[Window]) -> Iterator[Clip]:
    """WebDataset over shards whose clips are one JPEG per frame; only the window's frames are decoded."""
    starts, fps = dict(windows), json.loads((scratch / "jpeg.json").read_text())["fps"]
    shards = sorted(map(str, (scratch / "jpeg").glob("*.tar")))
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        if sample["__key__"] not in starts:
            continue
        start = starts[sample["__key__"]]
        names = sorted(name for name in sample if name.endswith(".jpg"))
        pictures = []
        for instant in instants(start):
            data = sample[names[min(int(instant * fps + 1e-6), len(names) - 1)]]
            pictures.append(
                small_square(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))  # pyright: ignore
            )
        with wave.open(io.BytesIO(sample["audio.wav"])) as file:
            file.setpos(min(round(start * RATE), file.getnframes()))
            sound = np.frombuffer(file.readframes(round(SECONDS * RATE)), "<i2") / np.float32(32767)
        yield np.stack(pictures), sound


class Modalgate:
    """The clip stream, and in the same process the bare decoding of the windows it has read last."""

    def __init__(self, scratch: Path) -> None:
        self.index = load_index(scratch / "shards").keep(json.loads((scratch / "keys.json").read_text()))
        self.batches = ClipStream(self.index, REQUEST, BATCH, seed=1).train(0)

    def windows(self, count: int) -> list[Window]:
        """Reads `count` windows; which they were."""
        read: list[Window] = []
        for batch in islice(self.batches, count // BATCH):
            read += [(key, float(start)) for key, start in zip(batch.key, batch.start[:, 0], strict=True)]
        return read

    def limit(self, windows: list[Window], colours: bool) -> None:
        """Reads and decodes the packets these windows need; their frames become RGB, or are thrown away."""
        samples = {sample.key: sample for sample in self.index.samples}
        for key, start in windows:
            sample = samples[key]
            with open(self.index.folder / sample.shard, "rb") as shard:  # pyright: ignore
                members = [read_at(shard, *sample.members[name]) for name in ("rgb.mp4", "audio.wav")]
            numbers = {int(instant * self.index.settings.fps + 1e-6) for instant in instants(start)}
            with av.open(io.BytesIO(members[0]), format="mp4") as container:
                stream = container.streams.video[0]
                stream.thread_type, stream.codec_context.thread_count = "NONE", 1
                packets = [packet for packet in container.demux(stream) if packet.size]
                first = max(n for n in range(min(min(numbers), len(packets) - 1) + 1) if packets[n].is_keyframe)
                for number in range(first, min(max(numbers) + 1, len(packets))):
                    for frame in packets[number].decode():
                        if colours and number in numbers:
                            cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
            np.frombuffer(members[1], "<i2", offset=44)


def read_at(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


FILE_PEERS: dict[str, Callable[[str, float], Clip]] = {
    "pyav": read_pyav,
    "pytorchvideo": read_pytorchvideo,
    "torchcodec": read_torchcodec,
}


def serve(name: str, scratch: Path) -> None:
    """Answers each line of standard input with the seconds it took.

    A line is a list of windows, with whether the bare loop makes colours of them, or the number of windows to draw.
    Before the first question it says what hinders it, or nothing.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        own = Modalgate(scratch) if name == "modalgate" else None
        if name in FILE_PEERS:
            next(read_files(scratch, FILE_PEERS[name], first_window(scratch)))
    except (ImportError, RuntimeError) as error:
        print(json.dumps(str(error).strip().splitlines()[0]), flush=True)
        return
    print(json.dumps(""), flush=True)
    for line in sys.stdin:
        asked, colours = json.loads(line)
        began = time.perf_counter()
        answer = {}
        if own is None:
            check(read_all(name, scratch, asked), len(asked))
        elif isinstance(asked, int):
            answer["windows"] = own.windows(asked)
        else:
            own.limit(asked, colours)
        print(json.dumps(answer | {"seconds": time.perf_counter() - began}), flush=True)


def first_window(scratch: Path) -> list[Window]:
    return [(json.loads((scratch / "keys.json").read_text())[0], 0.0)]


def read_all(name: str, scratch: Path, windows: list[Window]) -> Iterator[Clip]:
    if name == "jpeg_shards":
        return read_jpeg_shards(scratch, windows)
    return read_files(scratch, FILE_PEERS[name], windows)


def check(clips: Iterator[Clip], count: int) -> None:
    """Checks that a peer delivers what was requested."""
    for pictures, sound in clips:
        assert sorted(pictures.shape) == sorted((FRAMES, SIZE, SIZE, 3)), pictures.shape
        assert "uint8" in str(pictures.dtype), pictures.dtype
        assert len(sound) > 0
        count -= 1
    assert count == 0, f"{count} windows were not read"
