"""Work shared between processes. Each process does a part and gets all results."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch.distributed as dist

from ...shards.errors import DataError, RequestError
from ...shards.stream import ClipStream
from ...ssl.gather import rank, world_size

T = TypeVar("T")


def share(numbers: Sequence[int], work: Callable[[Sequence[int]], dict[int, T]]) -> dict[int, T]:
    """Returns the results of `work` for `numbers`, by number.

    Process r of w computes every w-th number, starting with the r-th. A `RequestError` or `DataError` in one process
    is raised in all, so that none waits forever.
    """
    if world_size() == 1:
        return work(numbers)
    made: dict[int, T] | RequestError | DataError
    try:
        made = work(numbers[rank() :: world_size()])
    except (RequestError, DataError) as error:
        made = error
    every: list[dict[int, T] | Exception] = [{}] * world_size()
    dist.all_gather_object(every, made)
    joined: dict[int, T] = {}
    for part in every:
        if isinstance(part, Exception):
            raise part
        joined |= part
    return joined


def share_batches(
    stream: ClipStream, work: Callable[[ClipStream], Iterable[T]], numbers: Sequence[int] | None = None
) -> list[T]:
    """Returns what `work` yields for each evaluation batch of `stream`, in order.

    The batches do not depend on the number of processes, so the results are equal to the last bit.

    - `numbers`: compute only the batches with these numbers.
    """
    if world_size() == 1 and numbers is None:
        return list(work(stream))
    wanted = range(-(-len(stream.index.samples) // stream.batch_size)) if numbers is None else numbers

    def some(mine: Sequence[int]) -> dict[int, T]:
        samples, size = stream.index.samples, stream.batch_size
        kept = tuple(sample for number in mine for sample in samples[number * size : (number + 1) * size])
        if not kept:
            return {}
        part = replace(stream, index=replace(stream.index, samples=kept))
        return dict(zip(mine, work(part), strict=True))

    made = share(wanted, some)
    return [made[number] for number in wanted]


def from_first(value: Callable[[], T]) -> T:
    """Returns `value()` of the first process in all processes.

    On a shared disk, other processes may not see the newest files yet. A `RequestError` or `DataError` is raised in
    all.
    """
    if world_size() == 1:
        return value()
    held: list[T | Exception | None] = [None]
    if rank() == 0:
        try:
            held = [value()]
        except (RequestError, DataError) as error:
            held = [error]
    dist.broadcast_object_list(held)
    [found] = held
    if isinstance(found, Exception):
        raise found
    return found  # pyright: ignore[reportReturnType]
