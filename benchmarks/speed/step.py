"""Cost of a pretraining step in parts: the stream without a model, the model without a stream, and both.

    .venv/bin/python benchmarks/speed/step.py [SHARDS] [--config demo-pretrain] [--steps 20] [--json FILE]

Without SHARDS a small generated corpus is packed first. The three are measured in one process, and the
median of each is printed with the load average.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from modalgate.fusion.backbone import Backbone
from modalgate.launch.config.load import load_config
from modalgate.launch.jobs.building import clip_request, clip_stream
from modalgate.launch.schema import PretrainConfig
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.worlds.write_world import write_world
from modalgate.ssl.objective import PretextObjective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?", type=Path)
    parser.add_argument("--config", default="demo-pretrain")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shards = arguments.shards or _corpus(Path(scratch))
        figures = measure(shards, arguments.config, arguments.steps)
    for name, value in figures.items():
        print(f"{name:24} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _corpus(scratch: Path) -> Path:
    write_world(scratch / "world", "impact12", 160)
    settings = PackSettings(modalities=("rgb", "flow", "audio", "depth"), size=48, fps=8.0, flow_bound=16.0)
    pack(scratch / "world", scratch / "shards", settings)
    return scratch / "shards"


def measure(shards: Path, name: str, steps: int) -> dict[str, float]:
    """Seconds per step of each part, by median, interleaved."""
    config = load_config("pretrain", name, [f"data.shards={shards}", "data.split=null"])
    assert isinstance(config, PretrainConfig)
    index = load_index(shards)
    request = clip_request(config.data, index)
    spec = ClipSpec.of(index, request)
    run = Path(config.out)
    batches = clip_stream(index, request, config.data, config.seed, run).train(0)
    config.data.workers = 0
    alone = clip_stream(index, request, config.data, config.seed, run).train(0)
    tasks = {task: (entry.weight, entry.arguments) for task, entry in config.tasks.items()}
    objective = PretextObjective(
        Backbone(request.modalities, config.model), spec, request.segments, tasks, config.augment
    )
    optimizer = torch.optim.AdamW(objective.parameters())
    held = next(batches)

    def train_on(batch: Batch) -> None:
        outputs = objective(batch)
        loss = sum(value for key, value in outputs.items() if key.endswith("/loss"))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    times: dict[str, list[float]] = {"stream_seconds": [], "model_seconds": [], "step_seconds": []}
    for number in range(steps + 2):
        taken = {
            "stream_seconds": _timed(lambda: next(alone)),
            "model_seconds": _timed(lambda: train_on(held)),
            "step_seconds": _timed(lambda: train_on(_next(batches))),
        }
        if number >= 2:  # the first steps warm up allocators and workers
            for part, seconds in taken.items():
                times[part].append(seconds)
    figures = {part: statistics.median(values) for part, values in times.items()}
    figures["clips_per_second"] = config.data.batch_size / figures["step_seconds"]
    figures["load_average"] = os.getloadavg()[0]
    return figures


def _next(batches: Iterator[Batch]) -> Batch:
    return next(batches)


def _timed(work: object) -> float:
    began = time.perf_counter()
    assert callable(work)
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
