"""Evaluation over several processes: each does its share of the work, and all come to know the whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch.distributed as dist

from ...shards.errors import DataError, RequestError
from ...shards.stream import ClipStream
from ...ssl.gather import rank, world_size

T = TypeVar("T")


def share(numbers: Sequence[int], work: Callable[[Sequence[int]], dict[int, T]]) -> dict[int, T]:
    """What `work` makes of `numbers`, by number; of several processes each is given every world-th of them.

    A `RequestError` or `DataError` of one process is raised in all: the others would wait for it in vain.
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
    """What `work` yields for each evaluation batch of `stream`, in order; for those with these `numbers` only.

    Batches are those of one process, however many there are: the same rows meet in the same products, so that the
    results are the same to the last bit.
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
    """`value()` of the first process, in all: on a shared disk the others may not see yet what it sees.

    A `RequestError` or `DataError` is raised in all.
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
