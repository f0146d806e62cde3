"""Read the sound of a media file as mono samples at a constant rate, each at the time of its packet."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from .container_io import MediaSource, open_media, ranked_sound
from .damaged_packets import SHORTEST_GAP, Damage, decode

# A time stamp may be off by this many seconds. No packet is as short.
JITTER = 0.01
# Number of packets and seconds that must confirm a jump in time stamps.
LOOK_AHEAD, LOOK_SECONDS = 8, 0.25
# Mean power from which a track sounds: -60 dB of full scale.
AUDIBLE = 1e-6
# A mix this much weaker than its loudest channel (20 dB) has cancelled.
CANCELLED = 0.01
# Samples per second of the slowest sound: a small packet of slower samples would last for hours.
LOWEST_RATE = 1000
# Seconds over which the powers of channels are averaged.
MEMORY = 0.5

OnGap = Callable[[float, float], None]
Samples = NDArray[np.float32]


def read_sound(
    source: MediaSource,
    rate: int,
    max_seconds: float = math.inf,
    damage: Damage | None = None,
    on_gap: OnGap | None = None,
) -> tuple[float, Samples]:
    """Returns a sound track in mono: (time of its first sample in seconds, (N,) float32 at `rate` Hz).

    The track is the one of `choose_sound`. Takes the same arguments and raises the same errors as `iterate_sound`.
    """
    start, parts = 0.0, []
    for number, (time, samples) in enumerate(iterate_sound(source, rate, max_seconds, damage, on_gap)):
        start = time if number == 0 else start
        parts.append(samples)
    return start, np.concatenate(parts) if parts else np.zeros(0, np.float32)


def iterate_sound(
    source: MediaSource,
    rate: int,
    max_seconds: float = math.inf,
    damage: Damage | None = None,
    on_gap: OnGap | None = None,
) -> Iterator[tuple[float, Samples]]:
    """Yields the sound of `read_sound` piece by piece: (time of the track's first sample, samples (n,)).

    Holds only a few packets in memory. Every packet stands at its own time stamp: missing ones become silence.

    - `damage`: counts undecodable packets, which become silence. Without it, such a packet raises `ValueError`.
    - `on_gap`: called with (start, end) of missing sound, in seconds on the clock of the time stamps.

    Raises `ValueError` without sound, for sound longer than `max_seconds`, and for a packet far beyond the end.
    """
    with open_media(source) as container:
        stream = choose_sound(container, source)
        header = float(container.duration or 0) / 1_000_000
        stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        if stated > max_seconds:
            raise ValueError(f"its sound lasts {stated:.0f} s, more than {max_seconds:g} (--max-seconds)")
        farthest = min(max_seconds, 2 * header + 10 if header else math.inf)
        track = MonoTrack(rate, max_seconds, farthest, on_gap)
        counted = 0
        for frame in decode(container, stream, damage):
            # Skipped packets are already counted.
            track.listed = damage is None or damage.packets == counted
            counted = counted if damage is None else damage.packets
            for samples in track.put(frame):
                yield track.start or 0.0, samples
        for samples in track.rest():
            yield track.start or 0.0, samples


class SoundPieces:
    """Cuts pieces from the sound of a recording, in their order. Only one piece is in memory.

    - `sound`: what `iterate_sound` yields. Its first samples are read at once.
    - `rate`: samples per second.
    - `origin`: time of the first sample of the first piece. None: that of the sound's first sample.
    """

    def __init__(self, sound: Iterator[tuple[float, Samples]], rate: int, origin: float | None = None) -> None:
        self.sound, self.rate = sound, rate
        self.parts: deque[Samples] = deque()
        # Samples that were read, and those of them that are forgotten.
        self.count, self.forgotten = 0, 0
        self.ended = False
        begin = self._read()
        self.origin = begin if origin is None else origin
        self.shift = round((self.origin - begin) * rate)

    def _read(self) -> float:
        """Reads further. Returns the time of the track's first sample, 0 after its end."""
        found = next(self.sound, None)
        if found is None:
            self.ended = True
            return 0.0
        self.parts.append(found[1])
        self.count += len(found[1])
        return found[0]

    def seconds(self, most: float) -> float:
        """Returns the seconds of sound after the origin, as far as `most` seconds: there may be more after them."""
        while not self.ended and self.count - self.shift < most * self.rate:
            self._read()
        return max(self.count - self.shift, 0) / self.rate

    def cut(self, start: float, duration: float) -> Samples:
        """Returns `duration` seconds from `start` seconds after the origin, with zeros where there is no sound."""
        length, first = max(round(duration * self.rate), 0), self.shift + round(start * self.rate)
        while not self.ended and self.count < first + length:
            self._read()
        while self.parts and self.forgotten + len(self.parts[0]) <= first:
            self.forgotten += len(self.parts.popleft())
        out, place = np.zeros(length, np.float32), self.forgotten - first
        for part in self.parts:
            kept = part[max(-place, 0) : max(length - place, 0)]
            out[max(place, 0) : max(place, 0) + len(kept)] = kept
            place += len(part)
        return out

    def finish(self) -> None:
        """Reads the rest, for its errors and gaps, and keeps nothing."""
        while not self.ended:
            self.parts.clear()
            self._read()


def choose_sound(container: Any, source: MediaSource) -> Any:
    """Returns the audio stream of an open container to read: the first that sounds, those marked as default first.

    Without one that sounds, it is the first of these. If there are several, `source` is opened and decoded once more,
    until it is clear. Raises `ValueError` without an audio stream.
    """
    ranked = ranked_sound(container)
    if not ranked:
        raise ValueError("it has no sound track")
    if len(ranked) == 1:
        return ranked[0]
    order = [stream.index for stream in ranked]
    heard: set[int] = set()
    with open_media(source) as again:
        streams = {stream.index: stream for stream in again.streams.audio}
        for packet in again.demux([streams[index] for index in order]):
            try:
                frames = packet.decode() if packet.stream.index not in heard else []
            except FFmpegError:
                continue
            if any(np.mean(np.square(_channels(frame), dtype=np.float64)) > AUDIBLE for frame in frames):
                heard.add(packet.stream.index)
            if order[0] in heard:
                break
    found = next((index for index in order if index in heard), order[0])
    return next(stream for stream in ranked if stream.index == found)


class MonoTrack:
    """Puts decoded frames of sound in their places on one track of mono samples.

    A time stamp that differs from the end of the sound before it means a gap, which becomes silence, or an overlap,
    which is dropped. A single late or early stamp is not believed: the frames after it must be as far off.

    - `rate`: samples per second of the track.
    - `most`: seconds above which it raises `ValueError`.
    - `farthest`: seconds of the longest gap. A longer one raises `ValueError`.
    - `on_gap`: called with (start, end) of each gap.

    `start` is the time of the first sample, None before it.
    """

    def __init__(
        self, rate: int, most: float = math.inf, farthest: float = math.inf, on_gap: OnGap | None = None
    ) -> None:
        self.rate, self.most, self.farthest, self.on_gap = rate, most, farthest, on_gap
        self.start: float | None = None
        self.listed = True
        # Time at which the next frame follows without a gap, and the samples that were returned.
        self.end, self.count = 0.0, 0
        self.waiting: deque[tuple[float | None, Samples, int]] = deque()
        self.mixer = Mixer()
        self.resampler: _Resampler | None = None

    def put(self, frame: Any) -> Iterator[Samples]:
        """Takes the next frame. Yields the samples (n,) that now have their place."""
        time = None if frame.pts is None else float(frame.pts * frame.time_base)
        if frame.sample_rate < LOWEST_RATE:
            raise ValueError(f"its sound has {frame.sample_rate} samples per second, fewer than {LOWEST_RATE}")
        if self.start is None:
            self.start = self.end = time or 0.0
        self.waiting.append((time, self.mixer.mix(frame), frame.sample_rate))
        while self.waiting and (samples := self._place(whole=False)) is not None:
            yield from samples

    def rest(self) -> Iterator[Samples]:
        """Yields the samples that still wait."""
        while self.waiting and (samples := self._place(whole=True)) is not None:
            yield from samples
        yield from self._drain()

    def _place(self, whole: bool) -> Iterable[Samples] | None:
        """Returns the samples of the first waiting frame; None if the frames after it must be heard first."""
        offsets, end = [], self.end
        for time, samples, rate in self.waiting:
            offsets.append(0.0 if time is None else time - end)
            end += len(samples) / rate
        if any(abs(offset) <= JITTER for offset in offsets):
            return self._append()
        if not whole and len(offsets) < LOOK_AHEAD and end - self.end < LOOK_SECONDS:
            return None
        if min(offsets) > 0:
            return self._late(min(offsets))
        if max(offsets) < 0:
            self._drop(-max(offsets))
        return self._append() if self.waiting else []

    def _late(self, seconds: float) -> Iterator[Samples]:
        """Yields silence and the first waiting frame after it."""
        yield from self._fill(seconds)
        yield from self._append()

    def _append(self) -> list[Samples]:
        _, samples, rate = self.waiting.popleft()
        self.end += len(samples) / rate
        if self.end - (self.start or 0.0) > self.most:
            raise ValueError(f"its sound lasts longer than {self.most:g} s (--max-seconds)")
        found = []
        if self.resampler is None or self.resampler.source != rate:
            found += self._drain()
            self.resampler = _Resampler(rate, self.rate)
        found += self.resampler.put(samples)
        self.count += sum(map(len, found))
        return found

    def _drain(self) -> list[Samples]:
        """Returns what the resampler holds back."""
        found = [] if self.resampler is None else self.resampler.rest()
        self.resampler = None
        self.count += sum(map(len, found))
        return found

    def _fill(self, seconds: float) -> Iterator[Samples]:
        if seconds > self.farthest:
            raise ValueError(f"its sound has a gap of {seconds:.0f} s, more than the recording can have")
        if self.on_gap is not None and self.listed and seconds >= SHORTEST_GAP:
            self.on_gap(self.end, self.end + seconds)
        yield from self._drain()
        self.end += seconds
        missing = max(round((self.end - (self.start or 0.0)) * self.rate) - self.count, 0)
        self.count += missing
        for first in range(0, missing, self.rate):
            yield np.zeros(min(self.rate, missing - first), np.float32)

    def _drop(self, seconds: float) -> None:
        """Drops the first `seconds` of what waits: sound of this time is already there."""
        while self.waiting and seconds > 0:
            time, samples, rate = self.waiting.popleft()
            taken = min(round(seconds * rate), len(samples))
            seconds -= len(samples) / rate if taken == len(samples) else seconds
            if taken < len(samples):
                time = None if time is None else time + taken / rate
                self.waiting.appendleft((time, samples[taken:], rate))


class Mixer:
    """Mixes frames of any layout to mono, as FFmpeg does. Where the mix cancels, takes the loudest channel.

    Channels of opposite phase, from a cable with swapped poles, have a mix of zero and yet sound.
    """

    def __init__(self) -> None:
        self.form: tuple[str, str, int] | None = None
        self.resampler: av.AudioResampler | None = None
        self.powers: NDArray[np.float64] = np.zeros(0)
        self.mixed = 0.0

    def mix(self, frame: Any) -> Samples:
        """Returns the samples (n,) of a frame in [-1, 1]."""
        channels = _channels(frame)
        if len(channels) == 1:
            return channels[0]
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self.form:
            self.form, self.powers, self.mixed = form, np.zeros(len(channels)), 0.0
            # Weights that add up to 1, so that loud channels in phase do not clip.
            self.resampler = av.AudioResampler(format="flt", layout="mono", options={"rematrix_maxval": "1"})
        mix = self._mix(frame, channels)
        keep = math.exp(-mix.shape[0] / frame.sample_rate / MEMORY)
        self.powers = keep * self.powers + np.square(channels, dtype=np.float64).sum(axis=1)
        self.mixed = keep * self.mixed + float(np.square(mix, dtype=np.float64).sum())
        loudest = int(self.powers.argmax())
        return channels[loudest] if self.mixed < CANCELLED * self.powers[loudest] else mix

    def _mix(self, frame: Any, channels: Samples) -> Samples:
        assert self.resampler is not None
        try:
            mixed = self.resampler.resample(frame)
        except (FFmpegError, ValueError):
            # A layout that FFmpeg has no weights for, such as 16 microphones.
            return channels.mean(axis=0)
        return np.concatenate([one.to_ndarray().reshape(-1).astype(np.float32) for one in mixed])


class _Resampler:
    """Changes the rate of mono samples. `source`: samples per second of what it takes."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.same, self.count = source, source == target, 0
        self.resampler = av.AudioResampler(format="flt", layout="mono", rate=target)

    def put(self, samples: Samples) -> list[Samples]:
        if self.same or not len(samples):
            return [samples]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
        frame.sample_rate, frame.pts = self.source, self.count
        self.count += len(samples)
        return [_flat(one) for one in self.resampler.resample(frame)]

    def rest(self) -> list[Samples]:
        return [] if self.same else [_flat(one) for one in self.resampler.resample(None)]


def _flat(frame: Any) -> Samples:
    return frame.to_ndarray().reshape(-1).astype(np.float32)


def _channels(frame: Any) -> Samples:
    """Returns the samples (channels, n) of a frame as floats in [-1, 1]."""
    values, count = frame.to_ndarray(), len(frame.layout.channels)
    if not frame.format.is_planar:
        values = values.reshape(-1, count).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
    return values.astype(np.float32)
