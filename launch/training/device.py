"""Device, precision and processes, through Accelerate."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, parse_flag_from_env

from ...shards.errors import RequestError

# Of malloc.h: from what size on a block is mapped alone, and how much that is free at the end of the heap goes back.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1


def make_accelerator(precision: str, hang_minutes: float = 10.0) -> Accelerator:
    """An `Accelerator` of `precision`: fp32, bf16, fp16, or auto (bf16 where the GPU has it, fp32 on a CPU).

    Collective operations fail a minute after `hang_minutes`, when whoever watches them has said who is late.
    Raises `RequestError` for fp16 without a GPU, and for several processes of which only one was started.
    """
    _check_launcher()
    cuda = torch.cuda.is_available()
    if precision == "auto":
        # Without emulation: a GPU that only imitates bf16 is slower with it than with fp16.
        whole = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if whole else "fp16" if cuda else "fp32"
    if precision == "fp16" and not cuda:
        raise RequestError("config key 'train.precision': fp16 needs a GPU: use fp32, bf16 or auto")
    # The state is one per process and holds the precision: a second training in it may ask for another.
    AcceleratorState._reset_state()
    # A branch is skipped where a whole batch lacks a modality; unused parameters then cost one more pass over the
    # graph, while a plain DDP would wait for their gradients for ever.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=hang_minutes + 1))
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        # Unless told that it is on a CPU, Accelerate takes the ranks that torchrun starts there for lone processes.
        cpu=not cuda and ranks()[1] > 1,
        kwargs_handlers=[unused, patience],
    )


def _check_launcher() -> None:
    """`accelerate launch --cpu` starts one process whatever `--num_processes`, and tells it where all would meet."""
    lone = "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ
    if lone and parse_flag_from_env("ACCELERATE_USE_CPU"):
        raise RequestError(
            "`accelerate launch --cpu` starts one process, which would train alone: "
            "for several on CPUs use `torchrun --nproc_per_node N` or `accelerate launch --multi_gpu`"
        )


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Inside, an operation that may give another result the next time is an error of torch's, if `wanted`."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS has no other way to be asked
        torch.backends.cudnn.benchmark = False  # or it chooses among its algorithms by a race
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def leave_cores_to(workers: int, threads: int | None = None) -> None:
    """Gives torch `threads`, or else the cores of this process that `workers` decoding processes leave, at least one.

    A thread that shares its core with a decoder arrives late at every barrier, and all the others wait for it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(share - workers, 1))


def keep_freed_memory() -> None:
    """Has glibc's allocator keep up to 2 GB of what is freed for what comes next; elsewhere it changes nothing.

    Every step frees the tensors of a whole batch and asks for as many again. By default each comes fresh from the
    kernel, which blanks it page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            mallopt(parameter, 2**31 - 1)


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes, as the launcher gave them; (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def agree(accelerator: Accelerator, *flags: bool | torch.Tensor) -> list[bool]:
    """Each flag on if it is on in any process: what one of them sees or is told, all have to act on together."""
    if accelerator.num_processes == 1:
        return [bool(flag) for flag in flags]
    here = torch.stack([torch.as_tensor(flag, dtype=torch.float32, device=accelerator.device) for flag in flags])
    seen: torch.Tensor = accelerator.reduce(here, "sum")  # pyright: ignore[reportAssignmentType]
    return [count > 0 for count in seen.tolist()]
