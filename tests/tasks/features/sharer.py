"""Two processes of a real gloo group that share work. Each writes its results to FOLDER."""

import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from modalgate.shards.errors import DataError, RequestError
from modalgate.ssl.gather import rank
from modalgate.tasks.features.across_processes import from_first, share

WORLD = 2


def fault(work: Callable[[], Any]) -> str:
    try:
        return f"nothing wrong: {work()}"
    except (RequestError, DataError) as error:
        return f"{type(error).__name__}: {error}"


def squares(numbers: Sequence[int]) -> dict[int, int]:
    return {number: number**2 for number in numbers}


def damaged(numbers: Sequence[int]) -> dict[int, int]:
    if 3 in numbers:
        raise DataError("clip 3 is damaged")
    return squares(numbers)


def missing() -> int:
    if rank() == 0:
        raise RequestError("there is no such file")
    return 5


def run(own: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=own, world_size=WORLD)
    done: list[int] = []

    def work(numbers: Sequence[int]) -> dict[int, int]:
        done.extend(numbers)
        return squares(numbers)

    found = {
        "shared": sorted(share([4, 1, 7], work).items()),
        "done": done,
        "damaged": fault(lambda: share([1, 2, 3, 4], damaged)),
        "first": from_first(lambda: own + 10),
        "missing": fault(lambda: from_first(missing)),
        "after": sorted(share([2], squares).items()),
    }
    (folder / f"rank-{own}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(number, Path(sys.argv[1]))) for number in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
