"""A process that decodes one recording of an unknown sender, with a limit on its memory, and can be killed."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import psutil

from ...shards.clip_spec import ClipSpec
from ...shards.clips.application import Application
from ...shards.clips.lifeline import end_with
from ...shards.clips.piece import Piece
from ...shards.index.unreadable import UNREADABLE, reason_of
from ...shards.live.pieces import recording_pieces
from ...shards.media.container_io import check_container
from ...shards.media.damaged_packets import Damage
from ...shards.media.thumbnails import stills
from ...shards.modality import MODALITIES
from ...shards.packing.rejected import KILLED

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Job:
    """What to decode.

    files: path by content.
    spec: how windows are cut.
    modalities: of the model.
    application: how the recording is cut into pieces.
    hop: seconds between pieces; None: as the model is applied.
    max_seconds: longest recording.
    max_memory: MB of 2^20 bytes that decoding may take.
    """

    files: dict[str, Path]
    spec: ClipSpec
    modalities: tuple[str, ...]
    application: Application
    hop: float | None
    max_seconds: float
    max_memory: int


class Undecodable(ValueError):
    """The recording cannot be decoded, for the reason in the message."""


class Decoder:
    """Decodes the recording of a job in a new process. Use it as a context manager: at the end the process is killed.

    Call `duration`, then read `pieces` to their end or to their error, then call `stills`. All raise `Undecodable`,
    also if the process dies, and with the reason given to `stop`. `damage` is known after the pieces.
    """

    def __init__(self, job: Job) -> None:
        self.damage = Damage()
        self.reason: str | None = None
        context = multiprocessing.get_context("forkserver")
        self.pipe, there = context.Pipe()
        # Closed when this process ends, in whatever way.
        lifeline, self.held = context.Pipe(duplex=False)
        self.process = context.Process(target=_decode, args=(there, lifeline, job), daemon=True)
        self.process.start()
        there.close()
        lifeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("it was abandoned")
        self.process.join()
        self.held.close()

    def stop(self, reason: str) -> None:
        """Kills the process. Safe from any thread."""
        self.reason = self.reason or reason
        self.process.kill()

    def duration(self) -> float:
        """Seconds of the first media file by its header; 0 if it is unknown."""
        return self._receive()

    def pieces(self) -> Iterator[Piece]:
        """Yields the pieces of the recording."""
        while isinstance(found := self._receive(), Piece):
            yield found
        self.damage = found

    def stills(self, times: list[float]) -> list[bytes | None]:
        """JPEG pictures of the video at `times`, None where there is none."""
        if self.reason is not None:
            # Pieces sent before it was killed may still be in the pipe.
            raise Undecodable(self.reason)
        try:
            self.pipe.send(times)
        except OSError as error:
            raise Undecodable(self.reason or KILLED) from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            found = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise Undecodable(self.reason or KILLED) from error
        if isinstance(found, Exception):
            raise found
        return found


def prepare() -> None:
    """Starts the server that forks decoders, with their modules imported, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "modalgate.launch.cli", __name__])
    with_nothing = context.Process(target=os.getpid, daemon=True)
    with_nothing.start()
    threading.Thread(target=with_nothing.join, daemon=True).start()


def limit_memory(megabytes: int) -> None:
    """Limits the memory that this process may take in addition to what it has; an allocation beyond it fails.

    It may write no files either. Windows has no such limits.
    """
    if sys.platform == "win32":
        return
    import resource

    most = psutil.Process().memory_info().vms + megabytes * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _decode(pipe: Any, lifeline: Any, job: Job) -> None:
    """Sends the duration, every piece and the damage, then pictures at the times it receives."""
    # Ctrl-C reaches the whole process group, and is left to the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    end_with(lifeline)
    limit_memory(job.max_memory)
    try:
        for found in _results(job):
            pipe.send(found)
        pipe.send(_stills(job.files.get("video"), pipe.recv()))
    except (EOFError, ConnectionError):
        return


def _results(job: Job) -> Iterator[Any]:
    """The duration, the pieces and the damage, or the error that ended them."""
    damage = Damage()
    try:
        yield _check(job)
        yield from recording_pieces(
            job.files,
            job.spec,
            job.modalities,
            job.application,
            job.hop,
            damage=damage,
            max_seconds=job.max_seconds,
        )
        yield damage
    except UNREADABLE as error:
        yield Undecodable(reason_of(error))
    except Exception as error:
        yield error


def _check(job: Job) -> float:
    """Seconds of the first media file; raises what `check_container` raises, and `ValueError` for a long one."""
    media = [path for role, path in job.files.items() if role == "video" or MODALITIES[role].kind != "signal"]
    seconds = [check_container(path) for path in media]
    if max(seconds, default=0.0) > job.max_seconds:
        raise ValueError(f"it lasts {max(seconds):.0f} s, more than {job.max_seconds:g} (--max-seconds)")
    return next(iter(seconds), 0.0)


def _stills(video: Path | None, times: list[float]) -> list[bytes | None]:
    try:
        return stills(video, times) if video is not None and times else [None] * len(times)
    except UNREADABLE:
        # Only sound, in a container for video.
        return [None] * len(times)
