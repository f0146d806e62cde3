"""Device, precision and processes, through Accelerate."""

import ctypes
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    parse_flag_from_env,
)

from ...shards.errors import DataError, RequestError

T = TypeVar("T")

# From malloc.h: the size above which a block is mapped separately, and the free memory at which the heap shrinks.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1


def make_accelerator(precision: str, hang_minutes: float = 10.0) -> Accelerator:
    """An `Accelerator` with `precision` fp32, bf16, fp16 or auto (GPU: bf16 if supported, else fp16; CPU: fp32).

    Collective operations fail one minute after `hang_minutes`, when the heartbeat has named the late rank. Raises
    `RequestError` for fp16 without a GPU, and if only one of several processes was started.
    """
    _check_launcher()
    cuda = torch.cuda.is_available()
    if precision == "auto":
        # Without emulation: a GPU that emulates bf16 is slower than with fp16.
        whole = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if whole else "fp16" if cuda else "fp32"
    if precision == "fp16" and not cuda:
        raise RequestError("config key 'train.precision': fp16 needs a GPU: use fp32, bf16 or auto")
    # The state is global and holds the precision: a second training in this process may use another one.
    AcceleratorState._reset_state()
    # An encoder is skipped if a whole batch lacks its modality. A plain DDP would wait for its gradients for ever;
    # finding unused parameters costs one more pass over the graph.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=hang_minutes + 1))
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        # Without `cpu`, Accelerate would treat the ranks that torchrun starts on a CPU as separate processes.
        cpu=not cuda and ranks()[1] > 1,
        kwargs_handlers=[unused, patience],
    )


def _check_launcher() -> None:
    """Raises `RequestError` under `accelerate launch --cpu`, which starts one process at any `--num_processes`
    says.
    """
    lone = "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ
    if lone and parse_flag_from_env("ACCELERATE_USE_CPU"):
        raise RequestError(
            "`accelerate launch --cpu` starts one process, which would train alone: "
            "for several processes on CPUs use `torchrun --nproc_per_node N` or `accelerate launch --multi_gpu`"
        )


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Inside the block, torch raises an error for an operation whose result may differ next time, if `wanted`."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the only way to configure cuBLAS
        torch.backends.cudnn.benchmark = False  # or it times its algorithms and picks the fastest
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def leave_cores_to(workers: int, threads: int | None = None) -> None:
    """Gives torch `threads`, else the cores of this process less those of `workers` decoding processes, at least one.

    A thread that shares its core with a decoder is late at every barrier, and all other threads wait for it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(share - workers, 1))


def keep_freed_memory() -> None:
    """Makes glibc's allocator keep up to 2 GB of freed memory for reuse; elsewhere nothing changes.

    Every step frees the tensors of a batch and allocates as many again. By default each allocation comes from the
    kernel, which clears it page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            mallopt(parameter, 2**31 - 1)


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes, from the launcher; (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def agree(accelerator: Accelerator, *flags: bool | torch.Tensor) -> list[bool]:
    """Each flag is true if it is true in any process: all processes act on it together."""
    if accelerator.num_processes == 1:
        return [bool(flag) for flag in flags]
    here = torch.stack([torch.as_tensor(flag, dtype=torch.float32, device=accelerator.device) for flag in flags])
    seen: torch.Tensor = accelerator.reduce(here, "sum")  # pyright: ignore[reportAssignmentType]
    return [count > 0 for count in seen.tolist()]


def on_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """The result of `work()`, which only the first process does; every process raises its error.

    An error of the first process alone would leave the others waiting for it. One that cannot be sent is a
    `DataError` in all of them.
    """
    found: list[T | None] = [None]
    error: Exception | None = None
    if accelerator.is_main_process:
        try:
            found[0] = work()
        except Exception as raised:
            error = raised if accelerator.num_processes == 1 else _sendable(raised)
    if accelerator.num_processes > 1:
        found[0], error = broadcast_object_list([found[0], error])
    if error is not None:
        raise error
    return found[0]  # pyright: ignore[reportReturnType]  (of the type T after the broadcast)


def _sendable(error: Exception) -> Exception:
    """`error`, or a `DataError` with its text if another process could not read it."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return DataError(f"{type(error).__name__}: {error}")
