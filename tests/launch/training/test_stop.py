"""The reasons to stop, and signals; in one process and in two with loader processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import latest_checkpoint
from modalgate.launch.training.stop import Signals, Stop, caught_signals
from modalgate.shards.errors import DataError

from ..given.free_port import free_port


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
from multiprocessing import forkserver
from modalgate.launch.training.stop import caught_signals

with caught_signals():
    worker = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    worker.start()
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
        os.kill(forkserver._forkserver._forkserver_pid, number)
    time.sleep(0.5)
    assert worker.exitcode is None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
assert worker.exitcode == -signal.SIGKILL, worker.exitcode
"""


def test_loader_processes_survive_signals_to_the_whole_job() -> None:
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


def test_a_lost_batch_ends_all_processes_alike() -> None:
    lost = OSError("no more batches")
    stops = [Stop(Signals(), 5, lambda: False, lambda: None) for _ in range(3)]
    here, there, signalled = stops
    here.lose_batch(lost, signalled=False)
    there.lose_batch(None, signalled=False)
    signalled.lose_batch(lost, signalled=True)
    assert all(stop.now(0) for stop in stops)
    with pytest.raises(OSError, match="no more batches"):
        here.raise_failure()
    with pytest.raises(DataError, match="another process has no next batch"):
        there.raise_failure()
    with pytest.raises(KeyboardInterrupt):
        signalled.raise_failure()


@contextmanager
def two_ranks(run: Path, config: str, *more: str) -> Iterator[list[subprocess.Popen[str]]]:
    """A pretraining in two processes of one process group, with two loader processes each, after its third step."""
    command = [sys.executable, "-m", "modalgate.launch.cli", "pretrain", config, f"out={run.parent}"]
    command += [f"name={run.name}", "data.workers=2", "train.steps=100000", "train.checkpoint_every=100000", *more]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks: list[subprocess.Popen[str]] = []
    try:
        for rank in ("0", "1"):
            group = ranks[0].pid if ranks else 0
            environment = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
            ranks.append(
                subprocess.Popen(command, env=environment, process_group=group, stderr=subprocess.PIPE, text=True)
            )
        until = time.monotonic() + 600
        while len(read_metrics(run)) < 3:
            assert all(process.poll() is None for process in ranks), [process.communicate() for process in ranks]
            assert time.monotonic() < until
            time.sleep(0.05)
        yield ranks
    finally:
        for process in ranks:
            process.kill()
            process.communicate()


def stop_all(ranks: list[subprocess.Popen[str]]) -> None:
    os.killpg(ranks[0].pid, signal.SIGTERM)


def kill_a_worker(ranks: list[subprocess.Popen[str]]) -> None:
    """Of rank 1, by SIGKILL, as when memory runs out."""
    children = psutil.Process(ranks[1].pid).children(recursive=True)
    (server,) = (child for child in children if "forkserver" in " ".join(child.cmdline()) and child.children())
    server.children()[0].kill()


@pytest.mark.parametrize(
    ("end", "statuses", "says"),
    [
        (stop_all, [130, 130], ["interrupted", "interrupted"]),
        pytest.param(
            kill_a_worker,
            [3, 3],
            ["another process has no next batch", "a process that decodes for rank 1 died"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_ranks_end_together_with_a_checkpoint(
    tmp_path: Path,
    tiny_config: str,
    end: Callable[[list[subprocess.Popen[str]]], None],
    statuses: list[int],
    says: list[str],
) -> None:
    run = tmp_path / "run"
    with two_ranks(run, tiny_config) as ranks:
        end(ranks)
        told = [process.communicate(timeout=240)[1] for process in ranks]
        assert [process.returncode for process in ranks] == statuses, told
    saved = latest_checkpoint(run)
    assert saved is not None
    assert int(saved.name.removeprefix("step-")) >= 3
    assert all(part in line for part, line in zip(says, told, strict=True)), told
