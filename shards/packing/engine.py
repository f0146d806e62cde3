"""Where recordings are encoded: in processes of this machine, or on a Ray cluster."""

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

import cv2

from ..clips.lifeline import end_with, leave_stops, start_server
from ..errors import RequestError

T = TypeVar("T")
R = TypeVar("R")
Engine = Callable[[Callable[[T], R], Sequence[T], int | None], Iterator[tuple[int, R | None]]]


def run_local(
    work: Callable[[T], R], items: Sequence[T], workers: int | None = None
) -> Iterator[tuple[int, R | None]]:
    """Yields (position, `work(item)`) for every item, in order of completion, from `workers` local processes.

    `workers`: default one per core. With one worker, the work runs in this process.

    The result is None for an item whose process died, because a decoder crashed or memory ran out. The processes end
    with the caller, even if it is killed. Raises `RequestError` if no process can start.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        yield from ((number, work(item)) for number, item in enumerate(items))
        return
    numbers = deque(range(len(items)))
    while numbers:
        # One death breaks the whole pool. Rerunning each suspect alone shows which item caused it.
        for suspect in (yield from _in_pool(work, items, numbers, workers)):
            alone = deque([suspect])
            if (yield from _in_pool(work, items, alone, 1)):
                yield suspect, None


def _in_pool(
    work: Callable[[T], R], items: Sequence[T], numbers: deque[int], workers: int
) -> Generator[tuple[int, R], None, list[int]]:
    """Processes `numbers`. Returns the items that were running when a process died, an empty list if none died."""
    start_server()
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    begin = partial(_prepare_worker, there)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin)
    running: dict[Future[R], int] = {}
    try:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as error:
            # Not caused by an item. Each process imports the running script up to its main guard.
            raise RequestError(
                'no worker process can start: put the script\'s calls under `if __name__ == "__main__":`, '
                "or use one worker"
            ) from error
        while numbers or running:
            while numbers and len(running) < 2 * workers:
                # A pool that has broken refuses the item, which then stays queued for the next pool.
                future = pool.submit(work, items[numbers[0]])
                running[future] = numbers.popleft()
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            # Results finished before a process died count: they may be returned together with the broken futures.
            for future in sorted(finished, key=lambda future: future.exception() is not None):
                result = future.result()
                yield running.pop(future), result
        pool.shutdown()
    except BrokenProcessPool:
        return sorted(running.values())
    finally:
        # Do not wait for the rest of a long recording: the workers end at once, in the middle of it.
        here.close()
        pool.shutdown(cancel_futures=True)
        there.close()
    return []


def _prepare_worker(parent: Any) -> None:
    """Limits OpenCV to one thread, and leaves signals, which reach the whole process group, to the parent."""
    leave_stops()
    cv2.setNumThreads(1)
    end_with(parent)


def run_on_ray(
    work: Callable[[T], R], items: Sequence[T], workers: int | None = None
) -> Iterator[tuple[int, R | None]]:
    """Like `run_local`, on a Ray cluster: the one in `RAY_ADDRESS`, or one started on this machine.

    Sources and output must have the same paths on every node.

    `workers`: tasks at a time. Default: two per core of the cluster.

    Raises `RequestError` if Ray is not installed.
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
