"""Names the rank that is late: every process reports its place, and a run ends when one stands still."""

import itertools
import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import PrefixStore, Store

WAITING, AGREEING = "waiting for data", "waiting for the data of the others"
FORWARD, BACKWARD = "in the forward pass", "in the backward pass"
EVALUATING, SAVING = "evaluating", "saving a checkpoint"

# A second training in the same processes must not read the places of the first.
_trainings = itertools.count()


@dataclass(frozen=True)
class Place:
    """The place of a rank: `beats` counts its places so far, `step` its finished steps."""

    beats: int = 0
    step: int = 0
    doing: str = "starting"


class Heartbeat:
    """Shares the place of this process with the others, and ends it when one has not moved for `seconds`.

    All ranks pass the same places in the same order, so the rank with the fewest beats is the one that the others
    wait for. One line on standard error names it, and every process exits with status 3: a process that hangs in a
    collective operation cannot raise. A thread reads and writes the process group's store; `at` only stores the
    place. Ranks that all evaluate at once wait for nobody and may take longer. With one process it does nothing.
    """

    def __init__(self, rank: int, world: int, seconds: float) -> None:
        self.rank, self.world, self.seconds = rank, world, seconds
        self._place = Place()
        self._ended, self._leaving = threading.Event(), threading.Event()

    def at(self, step: int, doing: str) -> None:
        """Records that this process has done `step` steps and is now `doing` something."""
        self._place = Place(self._place.beats + 1, step, doing)

    def __enter__(self) -> Self:
        number = next(_trainings)
        if self.world > 1:
            # A second client: the one of the group may be blocked as long as a collective operation waits.
            store = distributed_c10d._get_default_store().clone()  # pyright: ignore[reportAttributeAccessIssue]
            named = PrefixStore(f"modalgate/heartbeat-{number}", store)
            threading.Thread(target=self._watch, args=(named,), name="heartbeat", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._leaving.is_set():
            # This error only says that another process has ended; the thread is printing the reason.
            time.sleep(10 * self._pause)
        self._ended.set()

    @property
    def _pause(self) -> float:
        """Seconds between two exchanges."""
        return min(self.seconds / 10, 5.0)

    def _watch(self, store: Store) -> None:
        seen: dict[int, Place] = {rank: Place() for rank in range(self.world)}
        moved = dict.fromkeys(seen, time.monotonic())
        while not self._ended.wait(self._pause):
            now = self._exchange(store, seen)
            for rank, place in now.items():
                if place != seen[rank]:
                    moved[rank] = time.monotonic()
            seen = now
            late = late_ranks(seen)
            if late and all(time.monotonic() - moved[rank] > self.seconds for rank in late):
                self._end(store, seen, late)

    def _exchange(self, store: Store, seen: dict[int, Place]) -> dict[int, Place]:
        """The newest known places; if the store is gone, with the process that held it, only the own place
        changes.
        """
        here = self._place
        try:
            store.set(str(self.rank), json.dumps(asdict(here)))
            known = [rank for rank in seen if rank != self.rank and store.check([str(rank)])]
            return {**seen, **{rank: Place(**json.loads(store.get(str(rank)))) for rank in known}, self.rank: here}
        except RuntimeError:
            return {**seen, self.rank: here}

    def _end(self, store: Store, places: dict[int, Place], late: list[int]) -> None:
        """Prints one line for all processes and exits with them: the first to exit breaks the waiting of the
        others.
        """
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
