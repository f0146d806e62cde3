"""Cost of further pretext tasks in a step: a mixture of four against cross-modal contrast alone.

    .venv/bin/python benchmarks/speed/pretext.py [SHARDS] [--rounds 12] [--json FILE]

One batch of the demo's size stays in memory, so only the objective is timed: preparation, encoding, tasks, backward
and optimizer. `mixture_over_single` is the ratio of the medians; the ratio of each task is printed with it.
Without SHARDS a small generated corpus is packed first.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
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

MIXTURE = ("correspondence", "synchrony", "clip_order", "cross_modal")
OTHERS = ("arrow_of_time", "leave_one_out", "momentum_queue", "vicreg", "byol", "masked_latent", "gate_denoising")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shards = arguments.shards or _corpus(Path(scratch))
        figures = measure(shards, arguments.rounds)
    for name, value in figures.items():
        print(f"{name:32} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _corpus(scratch: Path) -> Path:
    write_world(scratch / "world", "impact12", 80)
    settings = PackSettings(modalities=("rgb", "flow", "audio", "depth"), size=48, fps=8.0, flow_bound=16.0)
    pack(scratch / "world", scratch / "shards", settings)
    return scratch / "shards"


def measure(shards: Path, rounds: int) -> dict[str, float]:
    """Seconds per step by median, interleaved, and their ratios to cross-modal alone."""
    config = load_config("pretrain", "demo-pretrain", [f"data.shards={shards}", "data.split=null", "data.workers=0"])
    assert isinstance(config, PretrainConfig)
    index = load_index(shards)
    request = clip_request(config.data, index)
    held = next(clip_stream(index, request, config.data, 0, Path(config.out)).train(0))
    rows = {"single": ("cross_modal",), "mixture": MIXTURE} | {
        f"with {name}": ("cross_modal", name) for name in OTHERS
    }
    objectives = {}
    for row, names in rows.items():
        torch.manual_seed(0)
        backbone = Backbone(request.modalities, config.model)
        tasks = {name: (1.0, {}) for name in names}
        spec = ClipSpec.of(index, request)
        objective = PretextObjective(backbone, spec, request.segments, tasks, config.augment).train()
        objectives[row] = (objective, torch.optim.AdamW(objective.parameters()))
    times: dict[str, list[float]] = {row: [] for row in rows}
    for number in range(rounds + 2):
        for row, (objective, optimizer) in objectives.items():
            seconds = _step(objective, optimizer, held)
            if number >= 2:  # the first steps warm up allocators
                times[row].append(seconds)
    medians = {row: statistics.median(values) for row, values in times.items()}
    figures = {"single_seconds": medians["single"], "mixture_over_single": medians["mixture"] / medians["single"]}
    figures |= {f"{row}_over_single": medians[row] / medians["single"] for row in rows if row.startswith("with")}
    return figures | {"load_average": os.getloadavg()[0]}


def _step(objective: PretextObjective, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    began = time.perf_counter()
    outputs = objective(batch)
    loss = sum(value for key, value in outputs.items() if key.endswith("/loss"))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
