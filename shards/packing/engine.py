"""Where recordings are encoded: processes of this machine, or a Ray cluster."""

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

import cv2

from ..clips.lifeline import end_with
from ..errors import RequestError

T = TypeVar("T")
R = TypeVar("R")
Engine = Callable[[Callable[[T], R], Sequence[T], int | None], Iterator[tuple[int, R | None]]]


def run_local(
    work: Callable[[T], R], items: Sequence[T], workers: int | None = None
) -> Iterator[tuple[int, R | None]]:
    """(position, `work(item)`) of every item as they are done, by `workers` processes (one per core by default).

    None stands for an item whose process died of it: a decoder that crashed, or memory that ran out. The processes
    end with the caller, also where that is killed. With one worker the work is done in this process. Raises
    `RequestError` where no process can start.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        yield from ((number, work(item)) for number, item in enumerate(items))
        return
    numbers = deque(range(len(items)))
    while numbers:
        # One death takes the whole pool along: whose it was shows when the suspects are run alone.
        for suspect in (yield from _in_pool(work, items, numbers, workers)):
            alone = deque([suspect])
            if (yield from _in_pool(work, items, alone, 1)):
                yield suspect, None


def _in_pool(
    work: Callable[[T], R], items: Sequence[T], numbers: deque[int], workers: int
) -> Generator[tuple[int, R], None, list[int]]:
    """Works `numbers` off; returns those under way when a process died, none where all went well."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    begin = partial(_prepare_worker, there)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin)
    running: dict[Future[R], int] = {}
    try:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as error:
            # Not an item's fault. Each process imports the script that is running, up to its main guard.
            raise RequestError(
                'no worker process can start: put the script\'s calls under `if __name__ == "__main__":`, '
                "or work with one worker"
            ) from error
        while numbers or running:
            while numbers and len(running) < 2 * workers:
                # A pool that broke meanwhile refuses the item, which then still waits for the next pool.
                future = pool.submit(work, items[numbers[0]])
                running[future] = numbers.popleft()
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            # What was done before a process died counts: its future may be found beside those that broke.
            for future in sorted(finished, key=lambda future: future.exception() is not None):
                result = future.result()
                yield running.pop(future), result
        pool.shutdown()
    except BrokenProcessPool:
        return sorted(running.values())
    finally:
        # Nobody waits for the rest of an hour's film: the workers end at once, in the middle of it.
        here.close()
        pool.shutdown(cancel_futures=True)
        there.close()
    return []


def _prepare_worker(parent: Any) -> None:
    """One thread for OpenCV; Ctrl-C, which reaches the whole process group, is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    end_with(parent)


def run_on_ray(
    work: Callable[[T], R], items: Sequence[T], workers: int | None = None
) -> Iterator[tuple[int, R | None]]:
    """The same on a Ray cluster: the one that `RAY_ADDRESS` names, or else one started on this machine.

    Sources and output must lie under the same paths on every node. `workers`: tasks at a time, by default two per
    core of the cluster. Raises `RequestError` where Ray is not installed.
    """
    try:
        import ray
        from ray.exceptions import OutOfMemoryError, WorkerCrashedError
    except ImportError as error:
        raise RequestError("the ray engine needs Ray: pip install 'modalgate[ray]'") from error
    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        task = ray.remote(num_cpus=1)(_on_one_thread)
        kept = ray.put(work)
        at_once = workers or 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        numbers, running = deque(range(len(items))), dict[Any, int]()
        while numbers or running:
            while numbers and len(running) < at_once:
                number = numbers.popleft()
                running[task.remote(kept, items[number])] = number
            (finished, *_), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(finished)
            try:
                result = ray.get(finished)
            except (OutOfMemoryError, WorkerCrashedError):
                result = None
            yield number, result
    finally:
        if begun:
            ray.shutdown()


def _on_one_thread(work: Callable[[T], R], item: T) -> R:
    cv2.setNumThreads(1)
    return work(item)


ENGINES: dict[str, Engine[Any, Any]] = {"local": run_local, "ray": run_on_ray}
