"""Cost of the training loop: against a plain loop and Lightning, in memory, and with a second process.

    .venv/bin/pip install --constraint constraints.txt --requirement benchmarks/requirements.txt
    .venv/bin/python benchmarks/speed/loop_cost.py [SHARDS] [--steps 40] [--rounds 5] [--json FILE]

Without SHARDS a small generated corpus is packed first. The model is `test_convnext` on RGB and on sound with four
pretext tasks, on one thread. 0 for a count of steps or rounds skips that part. No loop tracks by wandb.

`outside_share`: share of the time from the first request for a batch to the end of the last step that is neither
data wait, forward, backward nor optimiser. Clipping the gradients, which every loop here does, is separate:
`clip_share`. `ratio_to_bare`, `ratio_to_lightning`: our steps per second relative to theirs, on the same batches in
memory; the loops take turns, and the median over the rounds counts. `memory_mb_per_1000_steps`: slope of the
resident memory over the second half of a long run. `scaling`: clips per second of two processes of one thread, each
decoding its own clips, relative to one such process. `scaling_apart`: the same of two independent trainings, the
limit of the machine. `data_wait_share`: share of the time of a training with one decoding process, after
its first log.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from loop_peers import WARM_UP, Held, run_bare, run_lightning, run_ours, timed_parts
from modalgate.fusion.backbone import Backbone
from modalgate.launch.config.load import load_config
from modalgate.launch.jobs.building import clip_request, clip_stream
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.schema import PretrainConfig, TrainConfig
from modalgate.launch.training.device import ranks
from modalgate.launch.training.loop import train
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipStream
from modalgate.shards.worlds.write_world import write_world
from modalgate.ssl.objective import PretextObjective

CONFIG = """
kind: pretrain
data: {modalities: [rgb, audio], segments: 3, seconds: 0.75, frames: 6, size: 48, batch_size: 16, workers: 0}
model:
  width: 128
  fusion: softmax
  encoders: {video: {model: timm/test_convnext, pooling: gru}, audio: {model: timm/test_convnext, pooling: gru}}
tasks: {correspondence: {}, clip_order: {}, cross_modal: {}, across_time: {}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=40, help="per loop and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-steps", type=int, default=2000)
    parser.add_argument("--scaling-steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--as-rank", type=Path, help=argparse.SUPPRESS
    )  # what the processes of `scaling` are started with
    arguments = parser.parse_args()
    if arguments.as_rank:
        train_as_rank(arguments.shards, arguments.as_rank, arguments.scaling_steps)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = arguments.shards or corpus(folder)
        figures: dict[str, float] = {}
        for part in asked_parts(shards, folder, arguments):
            # Kept part by part: the whole takes many minutes.
            found = part() | {"load_average": os.getloadavg()[0]}
            figures |= found
            for name, value in found.items():
                print(f"{name:28} {value:10.4f}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def asked_parts(
    shards: Path, folder: Path, arguments: argparse.Namespace
) -> Iterator[Callable[[], dict[str, float]]]:
    """The measurements, as functions to call one after the other."""
    steps, rounds = arguments.scaling_steps, arguments.rounds
    if rounds:
        yield lambda: compare(shards, folder, arguments.steps, rounds)
    if steps:
        yield lambda: waiting(shards, folder, steps)
    if steps and rounds:
        yield lambda: scaling(shards, folder, steps, rounds)
    if arguments.memory_steps:
        yield lambda: memory(shards, folder, arguments.memory_steps)


def corpus(folder: Path) -> Path:
    write_world(folder / "world", "impact12", 96)
    pack(folder / "world", folder / "shards", PackSettings(modalities=("rgb", "audio"), size=48, fps=8.0))
    return folder / "shards"


def setting(
    shards: Path, folder: Path, workers: int = 0
) -> tuple[Callable[[], ClipStream], Callable[[], PretextObjective]]:
    """What opens this process's stream, and what builds the objective, always with the same weights."""
    path = folder / "loop.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    config = load_config("pretrain", str(path), [f"data.shards={shards}", f"data.workers={workers}"])
    assert isinstance(config, PretrainConfig)
    index = load_index(shards)
    request = clip_request(config.data, index)
    spec = ClipSpec.of(index, request)

    def build() -> PretextObjective:
        torch.manual_seed(0)
        tasks = {name: (task.weight, task.arguments) for name, task in config.tasks.items()}
        backbone = Backbone(request.modalities, config.model)
        return PretextObjective(backbone, spec, request.segments, tasks, config.augment)

    # Every process has a batch of the config's size.
    config.data.batch_size *= ranks()[1]
    return lambda: clip_stream(index, request, config.data, 0, folder), build


def loop_config(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, threads=1, precision="fp32", checkpoint_every=10**9, best=None)


def compare(shards: Path, folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """Seconds per step of each loop, and where ours go."""
    stream, build = setting(shards, folder)
    batches = list(islice(stream().train(0), 4))
    config = loop_config(steps + WARM_UP + 1)
    loops: dict[str, Callable[[PretextObjective, Held], None]] = {
        "ours": lambda objective, held: run_ours(objective, held, config, folder / f"run-{time.monotonic_ns()}"),
        "bare": lambda objective, held: run_bare(objective, held, config),
        "lightning": lambda objective, held: run_lightning(objective, held, config, folder),
    }
    for run in loops.values():
        run(build(), Held(batches))  # the first run in a process pays for its allocator and kernels
    seconds: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        # Each goes first in one round.
        for name in (list(loops) * 2)[number % len(loops) :][: len(loops)]:
            held = Held(batches)
            loops[name](build(), held)
            seconds[name].append(held.step_seconds())
        held = Held(batches)
        with timed_parts(held) as (parts, ends):
            loops["ours"](build(), held)
        whole = ends[-1] - held.asked[WARM_UP]
        for part, spent in parts.items():
            shares[part].append(spent / whole)
        shares["outside"].append(1 - sum(parts.values()) / whole)
    figures = {f"{name}_step_seconds": statistics.median(values) for name, values in seconds.items()}
    for peer in ("bare", "lightning"):
        # By round: what slows the machine for a while slows both.
        ratios = [theirs / ours for theirs, ours in zip(seconds[peer], seconds["ours"], strict=True)]
        figures[f"ratio_to_{peer}"] = statistics.median(ratios)
    return figures | {f"{part}_share": statistics.median(values) for part, values in shares.items()}


def memory(shards: Path, folder: Path, steps: int) -> dict[str, float]:
    """How much resident memory grows, in a process that has run these loops before."""
    stream, build = setting(shards, folder)
    held = Held(list(islice(stream().train(0), 4)))
    run_ours(build(), held, loop_config(steps), folder / "memory")
    late = np.array(held.resident[len(held.resident) // 2 :], dtype=float) / 1e6
    slope = float(np.polyfit(np.arange(len(late)) * 20, late, 1)[0]) * 1000 if len(late) > 1 else 0.0
    return {"memory_mb_per_1000_steps": slope, "memory_mb": float(late[-1])}


def waiting(shards: Path, folder: Path, steps: int) -> dict[str, float]:
    """The share of its time that a training waits for a decoding process."""
    stream, build = setting(shards, folder, workers=1)
    train(build(), stream(), loop_config(steps), folder / "waiting", tracker_mode="disabled")
    return {"data_wait_share": statistics.median(line["data_wait"] for line in read_metrics(folder / "waiting")[1:])}


def scaling(shards: Path, folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """Clips per second of one process and of two that train together, each on one thread. Also of two independent
    trainings at the same time: the upper limit of this machine."""
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name, (trainings, world) in {"one": (1, 1), "two": (1, 2), "apart": (2, 1)}.items():
            runs = [folder / f"scaling-{name}-{number}-{training}" for training in range(trainings)]
            started = [start_ranks(shards, run, steps, world) for run in runs]
            for process in started:
                errors = process.communicate()[1]
                if process.returncode:
                    raise SystemExit(errors)
            lines = [[line["clips_per_second"] for line in read_metrics(run)[1:]] for run in runs]
            rates[name] += [sum(together) for together in zip(*lines, strict=True)]
    one, two, apart = (statistics.median(rates[name]) for name in ("one", "two", "apart"))
    return {
        "one_process_clips_per_second": one,
        "two_processes_clips_per_second": two,
        "scaling": two / one,
        "scaling_apart": apart / one,
    }


def start_ranks(shards: Path, run: Path, steps: int, world: int) -> subprocess.Popen[str]:
    """One training of `world` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
    command += [__file__, str(shards), "--as-rank", str(run), "--scaling-steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def train_as_rank(shards: Path, run: Path, steps: int) -> None:
    """The training of one of several processes, with decoding."""
    with tempfile.TemporaryDirectory() as scratch:
        stream, build = setting(shards, Path(scratch))
        train(build(), stream(), loop_config(steps), run, tracker_mode="disabled")


if __name__ == "__main__":
    main()
