"""Signals as wishes."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from modalgate.launch.training.signals import Wishes, caught_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_the_second_acts(number: signal.Signals) -> None:
    acted: list[int] = []
    before = signal.signal(number, lambda received, frame: acted.append(received))
    try:
        with caught_signals() as wishes:
            assert wishes == Wishes()
            os.kill(os.getpid(), number)
            assert (wishes, acted) == (Wishes(stop=True), [])
            os.kill(os.getpid(), number)
            assert (wishes, acted) == (Wishes(stop=True), [number])
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)


def test_sigusr1_asks_to_save_each_time() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with caught_signals() as wishes:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wishes == Wishes(save=True)
            wishes.save = False
    assert signal.getsignal(signal.SIGUSR1) is before


WORKER = """
import multiprocessing, os, signal, time
from modalgate.launch.training.signals import caught_signals

with caught_signals():
    worker = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    worker.start()
    os.kill(worker.pid, signal.SIGUSR1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
assert worker.exitcode == -signal.SIGKILL, worker.exitcode
"""


def test_the_loader_s_processes_live_through_a_sigusr1() -> None:
    # In a process of its own: here an earlier test may have started the fork server already.
    subprocess.run([sys.executable, "-c", WORKER], check=True)


def test_another_thread_handles_no_signals() -> None:
    found: list[Wishes] = []

    def run() -> None:
        with caught_signals() as wishes:
            found.append(wishes)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [Wishes()]
