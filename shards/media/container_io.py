"""Reading and writing media with PyAV, whose wheel carries FFmpeg."""

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import EOFError as EndOfFileError
from av.error import InvalidDataError
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from .damaged_packets import Damage, decode
from .region import Region, cut_region

MediaSource = Path | str | io.BytesIO


@dataclass(frozen=True)
class MediaFacts:
    """What a container says of itself.

    `duration`: seconds of the longest stream; `video_seconds`: of the pictures, by the header, 0 where it is silent.
    """

    width: int
    height: int
    fps: float
    duration: float
    video_seconds: float
    has_video: bool
    has_sound: bool
    pixel_format: str


def open_media(
    source: MediaSource,
    container_format: str | None = None,
    options: dict[str, str] | None = None,
    timeout: float | None = None,
) -> Any:
    """An open container for reading; decoding stays on the calling thread, so workers do not fight for cores.

    `container_format`: FFmpeg's name of it where it is known, instead of a guess from the first bytes; `options`:
    FFmpeg's own; `timeout`: seconds to wait for data of a stream.

    Raises `ValueError` for a file that holds no media, and where a stream has a codec that FFmpeg has no decoder for;
    `av.FFmpegError`.
    """
    opened = source if isinstance(source, io.BytesIO) else str(source)
    try:
        # Tags in whatever encoding are no reason to refuse a film.
        container = av.open(
            opened, mode="r", format=container_format, metadata_errors="replace", options=options, timeout=timeout
        )
    except (InvalidDataError, EndOfFileError) as error:
        if not isinstance(source, Path):
            raise
        raise ValueError(_no_media(source)) from error
    for stream in (*container.streams.video, *container.streams.audio):
        if stream.codec_context is None:
            # A stream is not to be touched once its container is closed.
            problem = f"its {stream.type} stream has a codec that is not known"
            container.close()
            raise ValueError(problem)
    for stream in container.streams.video:
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
    return container


def _no_media(path: Path) -> str:
    """Why FFmpeg finds nothing in a file."""
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        return "it is empty"
    if head[4:] == b"ftyp":
        return "it is cut short: an MP4 has its index at its end, and it is not there"
    return "it holds no media in a form that FFmpeg knows"


def probe(source: MediaSource) -> MediaFacts:
    """Size in pixels, frame rate, duration in seconds and what streams there are; raises `av.FFmpegError`."""
    with open_media(source) as container:
        return media_facts(container)


def media_facts(container: Any) -> MediaFacts:
    """The same of an open container."""
    video = container.streams.video[0] if container.streams.video else None
    duration = max(float(container.duration or 0) / 1_000_000 - _matroska_start(container), 0.0)
    if video is not None and video.duration and video.time_base:
        duration = float(video.duration * video.time_base)
    return MediaFacts(
        width=video.codec_context.width if video else 0,
        height=video.codec_context.height if video else 0,
        fps=float(video.average_rate or video.guessed_rate or 0) if video else 0.0,
        duration=duration,
        video_seconds=_promised_seconds(container, video) if video is not None else 0.0,
        has_video=video is not None,
        has_sound=bool(container.streams.audio),
        pixel_format=(video.codec_context.pix_fmt or "") if video else "",
    )


def _promised_seconds(container: Any, video: Any) -> float:
    """Seconds of pictures by the header's count of frames, or by a duration that can be no other stream's."""
    if video.frames and video.average_rate:
        return float(video.frames / video.average_rate)
    end = _tagged_seconds(video)
    if not end and len(container.streams) == 1:
        end = float(container.duration or 0) / 1_000_000
    start = float((video.start_time or 0) * video.time_base) if _matroska_start(container) else 0.0
    return max(end - start, 0.0)


def _matroska_start(container: Any) -> float:
    """Seconds before the first packet, which Matroska alone counts among a film's own."""
    return float(container.start_time or 0) / 1_000_000 if "matroska" in container.format.name else 0.0


def _tagged_seconds(video: Any) -> float:
    """The duration that Matroska's writers note for each track, as `00:01:02.345`; 0 where there is none."""
    parts = video.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def iterate_frames(source: MediaSource, damage: Damage | None = None) -> Iterator[tuple[float, Any]]:
    """(time in seconds, decoded `av.VideoFrame`) in presentation order; pictures are made only of those one needs.

    Times are the stream's own, not counted from its first frame. With `damage`, packets that cannot be decoded are
    counted there and skipped.
    """
    with open_media(source) as container:
        stream = container.streams.video[0]
        for frame in decode(container, stream, damage):
            if frame.pts is not None:
                yield float(frame.pts * frame.time_base), frame


@dataclass
class FrameReader:
    """Turns decoded frames into pictures: (H, W, 3) uint8 RGB, or (H, W) for `gray` and `gray16le`.

    `short_side`: pixels to shrink to, keeping the aspect and even sizes; a smaller picture keeps its size, none is
    magnified. 16-bit gray is a measurement: it is picked by nearest neighbour, never averaged, and its levels, also
    those of a file with fewer bits or of an array (H, W), are multiplied by `scale`. The display rotation a phone
    stores is applied. `region`: left, top, width and height of the part to keep, as shares of the upright picture.
    """

    pixel_format: str = "rgb24"
    short_side: int | None = None
    scale: float = 1.0
    region: Region | None = None
    # One scaler for all frames: PyAV would set up a new one for each, at half a millisecond.
    scaler: VideoReformatter = field(default_factory=VideoReformatter)

    def read(self, frame: Any) -> NDArray[Any]:
        if self.region is None:
            return self._read(frame, self.short_side)
        part = cut_region(self._read(frame, None), self.region)
        size = fit_short_side(part.shape[1], part.shape[0], self.short_side)
        if size != part.shape[1::-1]:
            how = cv2.INTER_NEAREST if part.dtype == np.uint16 else cv2.INTER_AREA
            part = cv2.resize(part, size, interpolation=how)
        return np.ascontiguousarray(part)

    def _read(self, frame: Any, short_side: int | None) -> NDArray[Any]:
        if self.pixel_format == "gray16le":
            picture = self._measured(frame)
            width, height = fit_short_side(picture.shape[1], picture.shape[0], short_side)
            if short_side is not None and min(picture.shape) > short_side:
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        else:
            width, height = fit_short_side(frame.width, frame.height, short_side)
            same = (frame.width, frame.height) == (width, height)
            how = Interpolation.POINT if same else Interpolation.AREA
            picture = self.scaler.reformat(frame, width, height, self.pixel_format, interpolation=how).to_ndarray()
        turns = 0 if isinstance(frame, np.ndarray) else round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def _measured(self, frame: Any) -> NDArray[np.uint16]:
        """The levels as they were recorded, times `scale`."""
        if isinstance(frame, np.ndarray):
            levels = frame
        elif (bits := max(component.bits for component in frame.format.components)) <= 8:
            levels = frame.to_ndarray(format="gray")
        else:
            # The scaler fills 16 bits from fewer by repeating the upper ones below.
            levels = frame.to_ndarray(format="gray16le") >> max(16 - bits, 0)
        if levels.dtype != np.uint16 or self.scale != 1:
            # What is not finite was not measured.
            scaled = np.nan_to_num(np.asarray(levels, np.float64) * self.scale, nan=0.0, posinf=0.0, neginf=0.0)
            levels = np.clip(np.rint(scaled), 0, 65535)
        return levels.astype(np.uint16)


def fit_short_side(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Even (width, height) with the shorter side at most `short_side`, the aspect kept."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return _even(width, scale), _even(height, scale)


def _even(length: int, scale: float) -> int:
    return max(2, min(round(length * scale / 2), length // 2) * 2)


def write_video(
    target: Path | io.BytesIO,
    frames: NDArray[Any],
    rate: float,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    sound: NDArray[np.float32] | None = None,
    sample_rate: int = 16000,
    sound_codec: str = "pcm_s16le",
) -> None:
    """Encodes frames (T, H, W, 3) uint8 RGB, or (T, H, W) uint8 or uint16 gray, with an optional mono track.

    One encoder thread, so the same input gives the same bytes on every machine. `yuv420p` needs even sizes; RGB is
    written as BT.601 limited range, the only form the fast decoder reads right, gray as luminance unchanged.
    """
    source_format = "rgb24" if frames.ndim == 4 else ("gray16le" if frames.dtype == np.uint16 else "gray")
    target_name = target if isinstance(target, io.BytesIO) else str(target)
    # Without bitexact, Matroska writes a random segment id.
    exact = {"fflags": "+bitexact"}
    with av.open(target_name, mode="w", format=container_format, container_options=exact) as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(30000))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.options = dict[str, object](options or {})
        track = container.add_stream(sound_codec, rate=sample_rate, layout="mono") if sound is not None else None
        for picture in frames:
            if pixel_format == "yuv420p":
                frame = av.VideoFrame.from_ndarray(to_planar(picture), format="yuv420p")
            else:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=source_format)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None and sound is not None:
            assert isinstance(track, av.AudioStream)
            samples = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)
            piece = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            piece.sample_rate = sample_rate
            piece.pts = 0
            resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=sample_rate)
            for part in [*resampler.resample(piece), *resampler.resample(None)]:
                container.mux(track.encode(part))
            container.mux(track.encode(None))


def to_planar(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB or (H, W) gray to I420 (3H/2, W); gray levels become luminance unchanged, chroma neutral."""
    if picture.ndim == 3:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
    height, width = picture.shape
    return np.concatenate([picture, np.full((height // 2, width), 128, np.uint8)])


def write_wave(target: Path | io.BytesIO, sound: NDArray[np.float32], rate: int) -> None:
    """A mono 16-bit PCM wave file of `sound` (N,) in [-1, 1]."""
    with wave.open(target if isinstance(target, io.BytesIO) else str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
