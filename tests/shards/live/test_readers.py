"""Pieces from other processes: all of them, in order, and a process that dies is blamed on its item."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from modalgate.shards.live.readers import Ended, _Crew, relay


def read(item: tuple[str, int]) -> Iterator[tuple[str, int, int]]:
    """`count` pieces with the id of this process, then the behaviour that the name selects."""
    name, count = item
    for number in range(count):
        yield name, number, os.getpid()
    if name == "damaged":
        raise ValueError("it is damaged\nbeyond repair")
    if name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "defect":
        raise TypeError("a defect of ours")


def collected(items: list[tuple[str, int]], workers: int) -> tuple[dict[int, list[int]], dict[int, str], set[int]]:
    pieces, reasons, pids = defaultdict(list), {}, set()
    for number, piece in relay(read, items, workers, depth=4):
        assert number not in reasons, "nothing comes after the end"
        if isinstance(piece, Ended):
            reasons[number] = piece.reason
        else:
            assert piece[0] == items[number][0]
            pieces[number].append(piece[1])
            pids.add(piece[2])
    return dict(pieces), reasons, pids


ITEMS = [("whole", 20), ("damaged", 3), ("whole", 0), ("whole", 9)]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_piece_comes_once_and_in_order(workers: int) -> None:
    pieces, reasons, pids = collected(ITEMS, workers)
    assert pieces == {0: list(range(20)), 1: [0, 1, 2], 3: list(range(9))}
    assert reasons == {0: "", 1: "it is damaged", 2: "", 3: ""}
    assert (os.getpid() in pids) == (workers == 0)


def test_a_process_that_dies_is_replaced_and_its_item_named() -> None:
    pieces, reasons, pids = collected([("deadly", 2), ("whole", 5), ("deadly", 0), ("whole", 1)], 1)
    assert pieces == {0: [0, 1], 1: list(range(5)), 3: [0]}
    assert {number for number, reason in reasons.items() if "process that read it died" in reason} == {0, 2}
    assert len(pids) == 3


def test_other_errors_are_raised() -> None:
    with pytest.raises(TypeError, match="a defect of ours"):
        collected([("whole", 1), ("defect", 1)], 1)


def test_stopping_early_ends_processes_and_threads() -> None:
    before = set(threading.enumerate())
    pieces = relay(read, [("whole", 10_000), ("whole", 10_000)], 2, depth=3)
    pids = {next(pieces)[1][2] for _ in range(3)}  # pyright: ignore[reportIndexIssue]
    pieces.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    for thread in set(threading.enumerate()) - before:
        thread.join(120)
        assert not thread.is_alive()


def test_processes_end_with_a_killed_parent() -> None:
    script = Path(__file__).with_name("relayed.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(text) for text in done.stdout.split()]
    assert len(pids) == 2
    patience = time.monotonic() + 240
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < patience
        time.sleep(0.05)


class Tied(deque[int]):
    """A queue in which two threads look at the last item before either takes it."""

    def __init__(self, numbers: range) -> None:
        super().__init__(numbers)
        self.both = threading.Barrier(2)

    def __len__(self) -> int:
        length = super().__len__()
        if length == 1:
            with suppress(threading.BrokenBarrierError):
                self.both.wait(1)
        return length

    def __bool__(self) -> bool:
        return len(self) > 0


def test_two_threads_that_reach_for_the_last_item() -> None:
    crew = _Crew(read, [("whole", 1)] * 3, 4)
    crew.numbers = Tied(range(3))
    found = [crew._next(), crew._next()]

    def reach() -> None:
        try:
            found.append(crew._next())
        except IndexError:
            found.append(-1)

    threads = [threading.Thread(target=reach) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(found, key=str) == [0, 1, 2, None]
    crew.stop()
    assert crew._next() is None
