"""Read and write media with PyAV, whose wheel includes FFmpeg."""

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
from av.error import ArgumentError, InvalidDataError
from av.error import EOFError as EndOfFileError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from .accepted_containers import CONTAINERS, OTHERS, check_tables, no_media
from .damaged_packets import Damage, decode, order_of
from .region import Region, cut_region

MediaSource = Path | str | io.BytesIO
# Pictures with more pixels are not decoded. FFmpeg decodes some already to open a file.
MOST_PIXELS = 7680 * 4320
_allowed = [MOST_PIXELS]
# Coded pictures are padded to whole blocks.
_PADDING = 1.25
# Pictures that are not the video: covers, and the still frames of a film's chapters.
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
# A pixel more than this many times as wide as high, or as high as wide, is a damaged header.
LARGEST_ASPECT = 8.0
# A picture with a side this many times as long as the other is refused: shrunk by its short side it would stay large.
LARGEST_RATIO = 16.0


def allow_pixels(most: int) -> None:
    """Lets this process decode pictures of up to `most` pixels, if that is more than `MOST_PIXELS`."""
    _allowed[0] = max(most, MOST_PIXELS)


@dataclass(frozen=True)
class MediaFacts:
    """What a container's header says.

    - `width`, `height`: pixels. 0 without video.
    - `fps`: frames per second. 0 without video.
    - `duration`: seconds of the video, or of the longest stream if the video's is unknown.
    - `video_seconds`: seconds of video. 0 if the header does not state it.
    - `has_video`, `has_sound`: whether there is such a stream.
    - `pixel_format`: FFmpeg's name, such as `yuv420p`. Empty without video.
    - `aspect`: width of a pixel divided by its height.

    A cover picture is not video.
    """

    width: int
    height: int
    fps: float
    duration: float
    video_seconds: float
    has_video: bool
    has_sound: bool
    pixel_format: str
    aspect: float = 1.0


def open_media(
    source: MediaSource,
    container_format: str | None = None,
    options: dict[str, str] | None = None,
    timeout: float | None = None,
    address: bool = False,
) -> Any:
    """Opens a container for reading. Decoding stays on the calling thread, so that workers do not compete for cores.

    - `source`: a file or its bytes. Whatever its name, it is opened as a file.
    - `container_format`: FFmpeg's name of the format. Default: guessed from the first bytes.
    - `options`: FFmpeg's options for the container.
    - `timeout`: seconds to wait for data of a stream.
    - `address`: `source` is a URL or device, not a file.

    A file must contain its own media: a playlist could name any other file or address. Pictures beyond `allow_pixels`
    are not decoded, neither here nor later.

    Raises `ValueError` for a file without media, for a format that is not accepted and for codecs that FFmpeg cannot
    decode. Raises `av.FFmpegError` for other faults.
    """
    opened: Any = source
    bounds = {"max_pixels": str(int(_PADDING * _allowed[0]))}
    accepted = {} if address else {"format_whitelist": f"{CONTAINERS},{OTHERS}"}
    if not address and not isinstance(source, io.BytesIO):
        check_tables(Path(source))
        opened = file_name(source)
    try:
        # Tags in an unknown encoding must not make a file unreadable.
        container = av.open(
            opened,
            mode="r",
            format=container_format,
            metadata_errors="replace",
            options=bounds | accepted | (options or {}),
            timeout=timeout,
        )
    except (InvalidDataError, EndOfFileError) as error:
        if not isinstance(source, Path):
            raise
        raise ValueError(no_media(source)) from error
    except ArgumentError as error:
        if address:
            raise
        raise ValueError("its format is not accepted: give a file that contains its own video and sound") from error
    for streams in (container.streams.video, container.streams.audio):
        if streams and not any(stream.codec_context is not None for stream in streams):
            # A stream must not be used once its container is closed.
            problem = f"its {streams[0].type} stream has an unknown codec"
            container.close()
            raise ValueError(problem)
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            stream.codec_context.options = bounds
    return container


def check_container(path: Path) -> float:
    """Returns the duration in seconds from the header of a media file; 0 if the header does not store it.

    Raises `ValueError` for a format that is not in `CONTAINERS`, and the errors of `open_media`.
    """
    with open_media(path, options={"format_whitelist": CONTAINERS}) as container:
        return float(container.duration or 0) / 1_000_000


def file_name(path: Path | str) -> str:
    """Returns a file's name for FFmpeg, which would read `concat:a.mp4` as a protocol."""
    return f"file:{path}"


def find_pictures(container: Any) -> Any | None:
    """Returns the video stream, None without one: the first of those marked as default, or else the first of all.

    Cover pictures are not video, and streams with an unknown codec are skipped.
    """
    shown = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & COVERS]
    return next((stream for stream in shown if stream.disposition & Disposition.default), next(iter(shown), None))


def ranked_sound(container: Any) -> list[Any]:
    """Returns the audio streams with a known codec: those marked as default, then the others."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return sorted(known, key=lambda stream: not stream.disposition & Disposition.default)


def probe(source: MediaSource) -> MediaFacts:
    """Returns size, frame rate, duration and kinds of streams of a media file. Raises the errors of `open_media`."""
    with open_media(source) as container:
        return media_facts(container)


def media_facts(container: Any) -> MediaFacts:
    """Returns the facts of an open container."""
    video = find_pictures(container)
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
        aspect=pixel_aspect(video) if video else 1.0,
    )


def pixel_aspect(video: Any) -> float:
    """Returns the width of a video stream's pixels divided by their height; 1 if unknown or absurd."""
    ratio = float(video.sample_aspect_ratio or 0)
    return ratio if 1 / LARGEST_ASPECT <= ratio <= LARGEST_ASPECT else 1.0


def _promised_seconds(container: Any, video: Any) -> float:
    """Returns the seconds of video: by the header's frame count, or by a duration that must be the video's.

    Of an MP4 that was cut without encoding, this is what its edit list shows, not what it stores.
    """
    if video.frames and video.average_rate:
        stored = float(video.frames / video.average_rate)
        shown = (
            float(video.duration * video.time_base) if video.duration and "mov" in container.format.name else stored
        )
        return min(stored, shown)
    end = _tagged_seconds(video)
    if not end and len(container.streams) == 1:
        end = float(container.duration or 0) / 1_000_000
    start = float((video.start_time or 0) * video.time_base) if _matroska_start(container) else 0.0
    return max(end - start, 0.0)


def _matroska_start(container: Any) -> float:
    """Returns the seconds before the first packet. Only Matroska includes them in the duration."""
    return float(container.start_time or 0) / 1_000_000 if "matroska" in container.format.name else 0.0


def _tagged_seconds(video: Any) -> float:
    """Returns the duration that Matroska writers store for each track, as `00:01:02.345`; 0 if there is none."""
    parts = video.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def iterate_frames(source: MediaSource, damage: Damage | None = None) -> Iterator[tuple[float, Any]]:
    """Yields (time in seconds, decoded `av.VideoFrame`) in presentation order.

    Frames are not converted to pictures: the caller converts those it needs. Times are those of the stream and need
    not begin at 0. They continue where captures were joined (see `decode`) and never run backward.

    `damage`: counts undecodable packets, which are skipped. Without it, such a packet raises `ValueError`, as does a
    file without video.
    """
    with open_media(source) as container:
        stream = find_pictures(container)
        if stream is None:
            raise ValueError("it has no video stream")
        order = order_of(container, stream)
        for frame in decode(container, stream, damage):
            yield from order.put(frame)
        yield from order.rest()


@dataclass
class FrameReader:
    """Converts decoded frames to pictures: (H, W, 3) uint8 for RGB, (H, W) uint8 or uint16 for gray.

    - `pixel_format`: `rgb24`, `gray` or `gray16le`.
    - `short_side`: pixels to shrink the short side to. Keeps the aspect and makes sizes even; never magnifies.
    - `scale`: factor for the levels of `gray16le`, also of files with fewer bits and of arrays (H, W).
    - `region`: left, top, width and height of the part to keep, as shares of the upright picture.
    - `aspect`: width of a pixel divided by its height. Pictures get square pixels: their width is multiplied by it.

    16-bit gray is a measurement: it is resized by nearest neighbour, never averaged. The display rotation that phones
    store is applied.
    """

    pixel_format: str = "rgb24"
    short_side: int | None = None
    scale: float = 1.0
    region: Region | None = None
    aspect: float = 1.0
    # One scaler for all frames: setting up a new one for each takes PyAV half a millisecond.
    scaler: VideoReformatter = field(default_factory=VideoReformatter)

    def read(self, frame: Any) -> NDArray[Any]:
        """Returns the picture of one frame. Raises `ValueError` if one side is more than 16 times the other."""
        height, width = frame.shape[:2] if isinstance(frame, np.ndarray) else (frame.height, frame.width)
        width = round(width * self.aspect)
        if max(width, height) > LARGEST_RATIO * min(width, height):
            raise ValueError(
                f"it has pictures of {width} x {height} pixels: one side is over {LARGEST_RATIO:g} times the other"
            )
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
            wide = round(picture.shape[1] * self.aspect)
            width, height = fit_short_side(wide, picture.shape[0], short_side)
            if wide != picture.shape[1] or (short_side is not None and min(picture.shape) > short_side):
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        else:
            width, height = fit_short_side(round(frame.width * self.aspect), frame.height, short_side)
            same = (frame.width, frame.height) == (width, height)
            how = Interpolation.POINT if same else Interpolation.AREA
            picture = self.scaler.reformat(frame, width, height, self.pixel_format, interpolation=how).to_ndarray()
        turns = 0 if isinstance(frame, np.ndarray) else round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def _measured(self, frame: Any) -> NDArray[np.uint16]:
        """Returns the recorded levels, multiplied by `scale`."""
        if isinstance(frame, np.ndarray):
            levels = frame
        elif (bits := max(component.bits for component in frame.format.components)) <= 8:
            levels = frame.to_ndarray(format="gray")
        else:
            # The scaler fills 16 bits by repeating the upper bits below.
            levels = frame.to_ndarray(format="gray16le") >> max(16 - bits, 0)
        if levels.dtype != np.uint16 or self.scale != 1:
            # Values that are not finite were not measured.
            scaled = np.nan_to_num(np.asarray(levels, np.float64) * self.scale, nan=0.0, posinf=0.0, neginf=0.0)
            levels = np.clip(np.rint(scaled), 0, 65535)
        return levels.astype(np.uint16)


def fit_short_side(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Returns even (width, height) with the aspect kept and the short side at most `short_side`.

    >>> fit_short_side(1920, 1080, 112)
    (200, 112)
    """
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
    """Encodes frames (T, H, W, 3) uint8 RGB, or (T, H, W) uint8 or uint16 gray, with an optional mono sound track.

    - `rate`: frames per second.
    - `options`: encoder options.
    - `sound`: samples (N,) in [-1, 1] at `sample_rate` Hz.

    The same input gives the same bytes on every machine: the encoder runs on one thread. `yuv420p` needs even sizes.
    RGB is written as BT.601 in limited range, the only form that the fast decoder reads correctly. Gray becomes
    luminance unchanged.
    """
    source_format = "rgb24" if frames.ndim == 4 else ("gray16le" if frames.dtype == np.uint16 else "gray")
    target_name = target if isinstance(target, io.BytesIO) else file_name(target)
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
    """Converts (H, W, 3) RGB or (H, W) gray to I420 (3H/2, W). Gray becomes luminance, with neutral chroma."""
    if picture.ndim == 3:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
    height, width = picture.shape
    return np.concatenate([picture, np.full((height // 2, width), 128, np.uint8)])


def write_wave(target: Path | io.BytesIO, sound: NDArray[np.float32], rate: int) -> None:
    """Writes sound (N,) in [-1, 1] as a mono 16-bit PCM wave file."""
    with wave.open(target if isinstance(target, io.BytesIO) else str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
