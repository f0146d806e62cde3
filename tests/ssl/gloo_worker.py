"""Two processes of a real gloo group, and one alone: reads FOLDER/inputs, writes their results there."""

import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from modalgate.fusion.backbone import Encoded
from modalgate.fusion.mechanisms_by_name import build_fusion
from modalgate.shards.clip_spec import ClipSpec
from modalgate.ssl.gather import (
    gather,
    gather_encoded,
    gather_with_gradient,
    joined_gate_loss,
    rank,
    sum_over_ranks,
    world_size,
)
from modalgate.ssl.pretext.base import PretextTask
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS, build_pretext_task
from modalgate.ssl.views.segment_summary import summary_size
from modalgate.ssl.views.views import View
from safetensors.torch import load_file, save_file
from torch import Tensor

WORLD, SEGMENTS, WIDTH = 2, 4, 8
NAMES = ("rgb", "flow", "audio")
CLIP = ClipSpec(0.5, 4, 32, 32, 8.0, 8000, 8.0, {})


def take_view(task: PretextTask, name: str, tensors: dict[str, Tensor], case: str) -> View:
    """What the view `name` changes of all clips: the same on every rank, which takes its own rows."""
    present = {other: tensors[f"present.{case}"][..., number] for number, other in enumerate(NAMES)}
    clips = len(tensors["start"])
    generator = torch.Generator().manual_seed(7)
    shapes = {"rgb": (4, 3, 4, 4), "flow": (4, 2, 4, 4), "audio": (1, 8, 10)}
    streams = {n: torch.randn(clips, SEGMENTS, *shape, generator=generator) for n, shape in shapes.items()}
    return task.views[name](streams, present, generator)


def encode(
    tensors: dict[str, Tensor], task: PretextTask, read: str, mixing: Tensor, case: str, clips: slice
) -> Encoded:
    """What a task reads of some clips, its features under a shared linear map, as a backbone shares its weights."""
    present = {name: tensors[f"present.{case}"][clips, :, number] for number, name in enumerate(NAMES)}
    facts: dict[str, Tensor] = {}
    raw = tensors["raw.plain"][clips]
    if read in task.views:
        view = take_view(task, read, tensors, case)
        shape = (*view.segments.shape, *raw.shape[2:])
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(8), dtype=raw.dtype)
        raw, present = drawn[clips], {name: mask[clips] for name, mask in view.present.items()}
        facts = {name: fact[clips] for name, fact in (view.facts | {"segments": view.segments}).items()}
        facts = {name: fact.to(raw.dtype) if fact.is_floating_point() else fact for name, fact in facts.items()}
    features = {n: (raw[:, :, i] @ mixing) * present[n][..., None] for i, n in enumerate(NAMES)}
    weights = torch.softmax(raw[..., 0] @ torch.eye(len(NAMES), dtype=raw.dtype), dim=-1)
    embedding = (torch.stack(list(features.values()), dim=2) * weights[..., None]).sum(dim=2)
    start = tensors["start"][clips][:, : raw.shape[1]]
    facts["clip"] = torch.arange(len(tensors["start"]))[clips]
    facts |= {f"summary/{n}": raw[:, :, i].repeat(1, 1, summary_size(n) // WIDTH) for i, n in enumerate(NAMES)}
    return Encoded(NAMES, features, present, embedding, weights, raw.new_zeros(()), start, facts)


def judge(name: str, tensors: dict[str, Tensor], case: str, clips: slice) -> dict[str, Tensor]:
    """The task's loss on these clips joined over all ranks, and its gradients averaged over ranks as DDP does."""
    torch.manual_seed(0)
    task = build_pretext_task(name, NAMES, WIDTH, SEGMENTS, {}, CLIP).double().train()
    task.progress = 0.9
    for part in task.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    mixing = tensors["mixing"].clone().requires_grad_()
    found: dict[str, Tensor] = {}
    # Twice: queues are empty at first.
    for step in range(2):
        task.zero_grad()
        mixing.grad = None
        views = gather_encoded({read: encode(tensors, task, read, mixing, case, clips) for read in task.reads})
        loss = task(views, torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in (mixing, *task.parameters())]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        if world_size() > 1:
            dist.all_reduce(joined)
            joined /= world_size()
        found[f"{name}.{case}.{step}.loss"] = loss.detach()
        found[f"{name}.{case}.{step}.gradient"] = joined
    return found


def balance(fusion: str, tensors: dict[str, Tensor], case: str, clips: slice) -> dict[str, Tensor]:
    """The gate loss of a clip and of a view without sound, joined over all ranks, and its averaged gradients."""
    torch.manual_seed(0)
    gate = build_fusion(fusion, NAMES, WIDTH, {"balance": 1.0}).double()
    for parameter in gate.gate_parameters():
        torch.nn.init.normal_(parameter)
    present = {name: tensors[f"present.{case}"][clips, :, number] for number, name in enumerate(NAMES)}
    features = {name: tensors["raw.plain"][clips][:, :, number] for number, name in enumerate(NAMES)}
    views = []
    for hidden in ({}, {"audio": torch.zeros_like(present["audio"])}):
        fused = gate(features, present | hidden)
        views.append(
            Encoded(
                *(NAMES, features, present, fused.embedding, fused.weights, fused.aux_loss, tensors["start"][clips]),
                auxiliary=fused.auxiliary,
            )
        )
    loss = joined_gate_loss(views)
    loss.backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in gate.parameters()]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    if world_size() > 1:
        dist.all_reduce(joined)
        joined /= world_size()
    return {
        f"{fusion}.{case}.gate": loss.detach(),
        f"{fusion}.{case}.local": views[0].aux_loss.detach(),
        f"{fusion}.{case}.gate.gradient": joined,
    }


def judge_all(tensors: dict[str, Tensor], clips: slice) -> dict[str, Tensor]:
    """Every task of the registry in every case of presence."""
    found: dict[str, Tensor] = {}
    for name in PRETEXT_TASKS:
        for case in ("whole", "lopsided", "empty"):
            found |= judge(name, tensors, case, clips)
    for fusion in ("softmax", "gated_concat"):
        for case in ("whole", "lopsided", "empty"):
            found |= balance(fusion, tensors, case, clips)
    return found


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
        "sum": sum_over_ranks(torch.tensor([own + 5])),
    }
    each = len(tensors["start"]) // WORLD
    found |= judge_all(tensors, slice(own * each, (own + 1) * each))
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
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    save_file(judge_all(load_file(folder / "inputs.safetensors"), slice(None)), folder / "one.safetensors")
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
