"""Names the rank that is late or has failed. All processes report their progress and end together."""

import ctypes
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

import torch
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import PrefixStore, Store

from ...shards.errors import DataError, RequestError

WAITING, AGREEING = "waiting for data", "waiting for the data of the others"
FORWARD, BACKWARD = "in the forward pass", "in the backward pass"
UPDATING = "updating the weights"
EVALUATING, SAVING = "evaluating", "saving a checkpoint"

# Seconds between two checks for failures of other processes, and within which a running process answers an alarm.
LOOK, ANSWER = 0.25, 2.0
# Seconds until a process that has not noticed the failure is interrupted, then killed.
INTERRUPT, END = 4.0, 15.0
ENDED = "its process ended without an error, perhaps killed"

# A second training in the same processes must not read the places of the first.
_trainings = itertools.count()


@dataclass(frozen=True)
class Place:
    """The progress of a rank."""

    beats: int = 0
    """Number of places reported so far."""
    step: int = 0
    """Finished steps."""
    doing: str = "starting"
    """Current activity."""


@dataclass(frozen=True)
class Failure:
    """The first failure of a training."""

    rank: int
    """Rank of the failed process."""
    place: Place
    """Its last known progress."""
    reason: str
    """One line."""
    teller: int
    """Rank of the process that prints it."""

    def __str__(self) -> str:
        return f"rank {self.rank} failed after step {self.place.step}, {self.place.doing}: {self.reason}"


class Interrupted(Exception):
    """Raised in the main thread of a process because another process has failed."""


class Heartbeat:
    """Shares the progress of this process with the others. Ends it when a process has failed or hangs for `seconds`.

    All ranks report the same places in the same order, so the others wait for the rank with the fewest beats. One
    line on standard error names it. Every process exits with status 3, because a process that hangs in a collective
    operation cannot raise. A thread reads and writes the process group's store; `at` only stores the place. There is
    no limit while all ranks evaluate. With one process it does nothing.

    A process that raises an error calls `failure`, which sets an alarm in the store. Every process answers with the
    result of `keep`, and the first process writes a checkpoint from these answers (`rescue`). When the failed process
    exits, blocked processes get an error. A process that keeps computing is interrupted; one that stays blocked is
    killed.
    """

    def __init__(self, rank: int, world: int, seconds: float) -> None:
        self.rank, self.world, self.seconds = rank, world, seconds
        self.keep: Callable[[], bytes] = bytes
        self.rescue: Callable[[], str] = str
        self._place = Place()
        self._ended, self._leaving, self._back = threading.Event(), threading.Event(), threading.Event()
        self._store: Store | None = None
        self._failure: Failure | None = None
        self._answered = world - 1
        self._main = threading.get_ident()

    def at(self, step: int, doing: str) -> None:
        """Records that this process has done `step` steps and is now `doing` something."""
        self._place = Place(self._place.beats + 1, step, doing)

    def __enter__(self) -> Self:
        number = next(_trainings)
        if self.world > 1:
            # A second client: the group's client may be blocked while a collective operation waits.
            store = distributed_c10d._get_default_store().clone()  # pyright: ignore[reportAttributeAccessIssue]
            named = self._store = PrefixStore(f"modalgate/heartbeat-{number}", store)
            threading.Thread(target=self._watch, args=(named,), name="heartbeat", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._leaving.is_set():
            # This error is a consequence: another process has ended, and the thread is printing the reason.
            time.sleep(10 * self._pause)
        self.finish()

    def finish(self) -> None:
        """Ends the watch. Processes may then progress at different rates."""
        self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether the watch has ended."""
        return self._ended.is_set()

    @property
    def _pause(self) -> float:
        """Seconds between two exchanges."""
        return min(self.seconds / 10, 5.0)

    def failure(self, error: BaseException) -> Failure | None:
        """The failure that ends the training, after `error` in this process; None with one process.

        It is this process's failure, or that of another process which caused the error here. A process that does not
        answer ended without an error.
        """
        self._back.set()
        if self._store is None:
            return None
        if self._leaving.is_set():  # a process hangs, and the thread is printing that
            time.sleep(10 * self._pause)
        _interrupt(self._main, None)  # an interrupt would now break the steps below
        own = Failure(self.rank, self._place, describe_error(error), self.rank)
        try:
            if not _may_follow(error):
                self._declare(self._store, own)
            self._store.add("alarm", 1)
            answered = self.answers(ANSWER)
            # By now the failed process has declared its failure, unless its error looks like a consequence too.
            until = time.monotonic() + 2 * LOOK
            while not self._look(self._store) and time.monotonic() < until:
                time.sleep(LOOK / 5)
            if self._failure is None:
                silent = [rank for rank in range(self.world) if rank != self.rank and rank not in answered]
                lost = Failure(silent[0], self._place, ENDED, self.rank) if silent else own
                self._declare(self._store, lost)
        except RuntimeError:
            # The process that holds the store, usually the first, has ended.
            self._failure = self._failure or Failure(0, self._place, ENDED, self.rank)
        return self._failure

    def answers(self, seconds: float = 0.0) -> dict[int, bytes]:
        """The state kept by the other processes, by rank, of those that answer within `seconds`."""
        found: dict[int, bytes] = {}
        until = time.monotonic() + seconds
        with suppress(RuntimeError):
            while self._store is not None:
                for rank in set(range(self.world)) - {self.rank, *found}:
                    if self._store.check([f"kept/{rank}"]):
                        found[rank] = self._store.get(f"kept/{rank}")
                if len(found) == self.world - 1 or time.monotonic() > until:
                    break
                time.sleep(LOOK / 5)
        self._answered = len(found)
        return found

    def let_others_read(self) -> None:
        """Waits until all other processes know the failure, or for a short time: the store may end with this one."""
        store, until = self._store, time.monotonic() + ANSWER
        with suppress(RuntimeError):
            while store is not None and time.monotonic() < until and store.add("read", 0) <= self._answered:
                time.sleep(LOOK / 5)

    def _declare(self, store: Store, failure: Failure) -> None:
        """Makes `failure` known, unless another process was first."""
        if store.add("failures", 1) == 1:
            store.set("failure", json.dumps(asdict(failure)))
        while not self._look(store):
            time.sleep(LOOK / 5)

    def _look(self, store: Store) -> bool:
        """Whether the failure is known."""
        if self._failure is None and store.check(["failure"]):
            found = json.loads(store.get("failure"))
            self._failure = Failure(**(found | {"place": Place(**found["place"])}))
            store.add("read", 1)
        return self._failure is not None

    def _answer(self, store: Store) -> None:
        """Answers an alarm, and interrupts the main thread if it does not react."""
        began, interrupted = time.monotonic(), False
        with suppress(RuntimeError):  # the store may end with its process
            store.set(f"kept/{self.rank}", self.keep())  # pyright: ignore[reportArgumentType]  (bytes are accepted)
            while not self._ended.wait(LOOK / 5) and not self._look(store):
                pass
        while not self._ended.wait(LOOK / 5) and not self._back.is_set():
            waited = time.monotonic() - began
            if waited > INTERRUPT and not interrupted:
                interrupted = True
                _interrupt(self._main, Interrupted)
                if torch.distributed.get_backend() == "nccl":
                    distributed_c10d._abort_process_group()  # unlike gloo, it does not notice that a process ended
            if waited > END:
                if self.rank == 0:
                    print(f"error: {self._failure}{self.rescue()}", file=sys.stderr, flush=True)
                os._exit(3)

    def _watch(self, store: Store) -> None:
        seen: dict[int, Place] = {rank: Place() for rank in range(self.world)}
        moved = dict.fromkeys(seen, time.monotonic())
        due = time.monotonic() + self._pause
        while not self._ended.wait(min(self._pause, LOOK)):
            with suppress(RuntimeError):  # the store ended with its process; the main thread gets an error
                if store.add("alarm", 0):
                    self._answer(store)
                    return
            if time.monotonic() < due:
                continue
            due = time.monotonic() + self._pause
            now = self._exchange(store, seen)
            for rank, place in now.items():
                if place != seen[rank]:
                    moved[rank] = time.monotonic()
            seen = now
            late = late_ranks(seen)
            if late and all(time.monotonic() - moved[rank] > self.seconds for rank in late):
                self._end(store, seen, late)

    def _exchange(self, store: Store, seen: dict[int, Place]) -> dict[int, Place]:
        """The newest known places. Without the store, which ends with its process, only this rank's place is new."""
        here = self._place
        try:
            store.set(str(self.rank), json.dumps(asdict(here)))
            known = [rank for rank in seen if rank != self.rank and store.check([str(rank)])]
            return {**seen, **{rank: Place(**json.loads(store.get(str(rank)))) for rank in known}, self.rank: here}
        except RuntimeError:
            return {**seen, self.rank: here}

    def _end(self, store: Store, places: dict[int, Place], late: list[int]) -> None:
        """Prints one line for all processes and exits with them. The first exit gives blocked processes an error."""
        self._leaving.set()
        until = time.monotonic() + 3 * self._pause
        # The process that holds the store may exit first.
        with suppress(RuntimeError):
            if store.add("told", 1) == 1:
                print(describe(places, late, self.seconds), file=sys.stderr, flush=True)
            while store.add("told", 0) < self.world and time.monotonic() < until:
                time.sleep(0.05)
        os._exit(3)


def late_ranks(places: dict[int, Place]) -> list[int]:
    """The ranks with the fewest beats; none if all are evaluating."""
    fewest = min(place.beats for place in places.values())
    late = [rank for rank, place in places.items() if place.beats == fewest]
    if len(late) == len(places) and all(place.doing == EVALUATING for place in places.values()):
        return []
    return late


def describe(places: dict[int, Place], late: list[int], seconds: float) -> str:
    """One line that names the late ranks, their step and what they were doing."""
    place = places[late[0]]
    who = f"rank {late[0]} has" if len(late) == 1 else f"ranks {', '.join(map(str, late))} have"
    return (
        f"error: {who} made no progress for {seconds / 60:.3g} minutes, after step {place.step}, {place.doing}; "
        f"all {len(places)} processes stop: resume from the last checkpoint, or raise train.hang_minutes"
    )


def describe_error(error: BaseException) -> str:
    """The first line of an error, with its type unless it is an error of this package."""
    line = (str(error).strip() or "no message").splitlines()[0]
    return line if isinstance(error, DataError | RequestError) else f"{type(error).__name__}: {line}"


def _may_follow(error: BaseException) -> bool:
    """Whether `error` may be due to the failure of another process, which ends an exchange with a `RuntimeError`."""
    return isinstance(error, RuntimeError | Interrupted) and not isinstance(error, torch.OutOfMemoryError)


def _interrupt(thread: int, kind: type[BaseException] | None) -> None:
    """Raises `kind` in `thread` at its next step in Python; None: cancels that."""
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
