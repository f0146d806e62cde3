"""Two processes of a real gloo group: `gloo_worker.py FOLDER` reads its inputs and writes what each rank found."""

import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from modalgate.ssl.contrastive import cross_modal_loss
from modalgate.ssl.gather import gather, gather_with_gradient, rank, sum_over_ranks, world_size
from modalgate.ssl.pretext import unit
from safetensors.torch import load_file, save_file
from torch import Tensor

WORLD = 2


def contrast(tensors: dict[str, Tensor], own: int, case: str) -> dict[str, Tensor]:
    """This rank's loss and the gradient averaged over ranks, as DDP averages it, of a shared linear head."""
    head = tensors["head"].clone().requires_grad_()
    first, second = tensors["first"][own], tensors["second"][own]
    valid, clips = tensors[f"valid.{case}"][own], tensors["clips"][own]
    loss, accuracy = cross_modal_loss(unit(first @ head), unit(second @ head), valid, clips, 0.1)
    loss.backward()
    assert head.grad is not None
    dist.all_reduce(head.grad)
    return {f"{case}.loss": loss.detach(), f"{case}.accuracy": accuracy, f"{case}.gradient": head.grad / WORLD}


def run(own: int, folder: Path) -> None:
    torch.set_num_threads(1)
    # They meet in a file: no port that another process could take.
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=own, world_size=WORLD)
    tensors = load_file(folder / "inputs.safetensors")
    rows = tensors["rows"][own].clone().requires_grad_()
    joined = gather_with_gradient(rows)
    # Each rank weighs the joined rows differently, so the gradient shows whose share arrived.
    (joined * tensors["factors"][own]).sum().backward()
    assert rows.grad is not None
    found = {
        "rank": torch.tensor([rank(), world_size()]),
        "joined": joined.detach(),
        "gradient": rows.grad,
        "mask": gather(tensors["valid.unequal"][own]),
        "numbers": gather(tensors["clips"][own]),
        "sum": sum_over_ranks(torch.tensor([own + 5])),
    }
    for case in ("unequal", "lopsided", "empty"):
        found |= contrast(tensors, own, case)
    save_file(found, folder / f"rank-{own}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    # Importing takes longer than all the rest, and here nothing has run yet that a fork could break.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(rank, Path(sys.argv[1]))) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
