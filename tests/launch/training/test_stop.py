"""The four reasons to stop, and signals."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from modalgate.launch.training.stop import Signals, Stop, caught_signals
from modalgate.shards.errors import DataError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_requests_a_stop_and_second_takes_effect(number: signal.Signals) -> None:
    acted: list[int] = []
    before = signal.signal(number, lambda received, frame: acted.append(received))
    try:
        with caught_signals() as signals:
            assert signals == Signals()
            os.kill(os.getpid(), number)
            assert (signals, acted) == (Signals(stop=True), [])
            os.kill(os.getpid(), number)
            assert (signals, acted) == (Signals(stop=True), [number])
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)


def test_every_sigusr1_requests_a_save() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with caught_signals() as signals:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals == Signals(save=True)
            signals.save = False
    assert signal.getsignal(signal.SIGUSR1) is before


WORKER = """
import multiprocessing, os, signal, time
from modalgate.launch.training.stop import caught_signals

with caught_signals():
    worker = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    worker.start()
    os.kill(worker.pid, signal.SIGUSR1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
assert worker.exitcode == -signal.SIGKILL, worker.exitcode
"""


def test_loader_processes_survive_sigusr1() -> None:
    # In a separate process, because an earlier test may have started the fork server here.
    subprocess.run([sys.executable, "-c", WORKER], check=True)


def test_another_thread_handles_no_signals() -> None:
    found: list[Signals] = []

    def run() -> None:
        with caught_signals() as signals:
            found.append(signals)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [Signals()]


def test_each_reason_stops_and_failures_raise() -> None:
    def stop(enough: bool = False, error: DataError | None = None) -> Stop:
        return Stop(Signals(), 5, lambda: enough, lambda: error)

    assert [stop().now(step) for step in (0, 4, 5)] == [False, False, True]
    assert stop(enough=True).now(0)
    for calm in (stop(), stop(enough=True)):
        calm.raise_failure()
    failed = stop(error=DataError("not finite"))
    failed.interrupted = True
    assert failed.now(0)
    with pytest.raises(DataError, match="not finite"):
        failed.raise_failure()
    signalled = stop()
    signalled.interrupted = True
    assert signalled.now(0)
    with pytest.raises(KeyboardInterrupt):
        signalled.raise_failure()
