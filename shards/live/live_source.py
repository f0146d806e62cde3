"""Live sources as sliding pieces. Reconnects after a loss, and drops pieces rather than fall behind."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from av.error import FFmpegError

from ..clip_spec import ClipSpec
from ..clips.application import Application
from ..clips.piece import Piece
from ..media.container_io import FrameReader
from ..media.credentials import masked
from ..media.pictures import at_constant_rate
from ..modality import shown_by
from .address import Address
from .connection import Connection
from .segment import Section, iterate_sections
from .sliding import cut_pieces, sliding_settings, sound_memory
from .tracks import Pictures, Sound, Track

LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Gap:
    """A part of a source that no piece shows.

    - `start`, `end`: seconds.
    - `dropped`: pieces that could have been made.
    - `reason`: why there are none.
    """

    start: float
    end: float
    dropped: int
    reason: str


@dataclass(frozen=True)
class Patience:
    """How long to wait for a live source.

    - `max_lag`: most seconds that pieces may be late. Older pieces are dropped.
    - `retries`: attempts in a row to reconnect.
    - `timeout`: seconds without data after which the connection counts as lost.
    - `wait`: seconds before the first attempt. The wait doubles with each attempt, up to half a minute.
    """

    max_lag: float = 5.0
    retries: int = 5
    timeout: float = 10.0
    wait: float = 1.0


class LiveSource:
    """A stream or camera, over all of its connections.

    `notice`: called with a sentence when the connection is lost or restored.

    Times are seconds from the first packet and continue during a loss. Raises `av.FFmpegError`, `OSError` or
    `ValueError` if the source cannot be opened at first, and `ConnectionError` if all attempts to reconnect fail.
    """

    def __init__(
        self, address: Address, patience: Patience | None = None, notice: Callable[[str], None] = lambda text: None
    ) -> None:
        self.address, self.patience, self.notice = address, patience or Patience(), notice
        self.stopped = threading.Event()
        self.connection: Connection | None = None

    def close(self) -> None:
        """Ends all waiting for the source."""
        self.stopped.set()
        if self.connection is not None:
            self.connection.stop()

    def slide(
        self, spec: ClipSpec, modalities: tuple[str, ...], application: Application, hop: float | None = None
    ) -> Iterator[Piece | Gap]:
        """Yields pieces as from a long recording, and the gaps of the source. Ends with the source.

        No piece spans a gap. Each piece has the time of day at which it began. From a recording that is read by URL
        nothing is dropped, and without a `hop` its last piece ends where it does.
        """
        step = application.step(hop)
        first: float | None = None
        began, end = 0.0, 0.0
        for section in self._sections("audio" in modalities, bool(shown_by("rgb", modalities))):
            if first is None:
                first, began = section.clock, time.time() - (time.monotonic() - section.clock)
            offset = max(section.clock - first, end)
            if section.reason:
                yield Gap(round(end, 3), round(offset, 3), 0, section.reason)
            for found in _cut(section, spec, modalities, application, step, hop is None, self.patience.max_lag):
                end = offset + found.end
                found = replace(found, start=offset + found.start, end=end)
                yield replace(found, clock=began + found.start) if isinstance(found, Piece) else found

    def _sections(self, sound: bool, pictures: bool) -> Iterator[Section]:
        failed, reason = 0, ""
        patience = self.patience
        while not self.stopped.is_set():
            try:
                connection = Connection(
                    self.address, patience.timeout, 2 * patience.max_lag + patience.timeout, pictures, sound
                )
            except (FFmpegError, OSError, ValueError) as error:
                if not reason:
                    raise
                fault = _sentence(error)
            else:
                self.connection = connection
                try:
                    for section in iterate_sections(connection):
                        if failed:
                            self.notice(f"{self.address}: reconnected")
                        failed = 0
                        section.reason = section.reason or reason
                        yield section
                finally:
                    connection.close()
                fault = _sentence(connection.fault) if connection.fault is not None else "it ended"
                if connection.finite or self.stopped.is_set():
                    if connection.fault is not None and not self.stopped.is_set():
                        raise connection.fault
                    return
            reason = f"connection lost: {fault}"
            if patience.retries == 0:
                self.notice(f"{self.address}: {reason}")
                return
            if failed == patience.retries:
                attempts = f"{failed} attempt{'s' * (failed > 1)}"
                raise ConnectionError(f"gave up after {attempts} to reconnect: {fault}")
            wait = min(patience.wait * 2**failed, LONGEST_WAIT)
            failed += 1
            self.notice(f"{self.address}: {reason}; attempt {failed} of {patience.retries} in {wait:g} s")
            self.stopped.wait(wait)


class _Lateness:
    """Decides which pieces are skipped: from a lag of `max_lag` seconds on, until it has halved."""

    def __init__(self, section: Section, max_lag: float, seconds: float) -> None:
        self.section, self.max_lag, self.seconds = section, max_lag, seconds
        self.hurrying = False
        self.first = self.last = 0.0
        self.dropped = 0

    def skip(self, start: float) -> bool:
        """Returns whether to skip the piece at `start`, and counts it."""
        self.hurrying = self.section.behind > (self.max_lag / 2 if self.hurrying else self.max_lag)
        if self.hurrying:
            self.first = self.first if self.dropped else start
            self.last = start + self.seconds
            self.dropped += 1
        return self.hurrying

    def told(self) -> Iterator[Gap]:
        """Yields the gap since the last call, if pieces were skipped."""
        if self.dropped:
            yield Gap(self.first, self.last, self.dropped, "the model is behind")
        self.dropped = 0


def _cut(
    section: Section,
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float,
    to_the_end: bool,
    max_lag: float,
) -> Iterator[Piece | Gap]:
    tracks = _tracks(section, spec, modalities, application)
    if not tracks:
        raise ValueError(f"it has none of {', '.join(modalities)}")
    lateness = _Lateness(section, max_lag, application.piece)
    finite = section.connection.finite
    for piece in cut_pieces(tracks, spec, modalities, application, hop, lateness.skip, to_the_end and finite):
        yield from lateness.told()
        # A recording may be shorter than a piece. A shorter piece of a broken connection is not comparable.
        if finite or piece.end - piece.start > application.piece - 1e-6:
            yield piece
    yield from lateness.told()


def _tracks(section: Section, spec: ClipSpec, modalities: tuple[str, ...], application: Application) -> list[Track]:
    settings, connection = sliding_settings(spec, modalities), section.connection
    facts = connection.facts
    if not connection.finite:
        facts = replace(facts, duration=0.0, video_seconds=0.0)
    tracks: list[Track] = []
    if connection.video is not None:
        reader = FrameReader("rgb24", settings.size, region=settings.region, aspect=facts.aspect)
        pictures = at_constant_rate("stream", section.frames(), reader, settings, facts)
        tracks.append(Pictures(pictures, shown_by("rgb", modalities), spec))
    if connection.audio is not None:
        sound, memory = section.sound(spec.sample_rate), sound_memory(application, settings)
        tracks.append(Sound(sound, section.origin, spec, settings.silence_db, memory))
    return tracks


def _sentence(error: Exception) -> str:
    return masked((getattr(error, "strerror", None) or str(error)).splitlines()[0]).lower()
