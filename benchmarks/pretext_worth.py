"""What is each pretext task worth for a linear probe, at equal compute, over seeds?

    .venv/bin/python benchmarks/pretext_worth.py FOLDER [--rows cross_modal,clip_order] [--seeds 5] [--json FILE]

A generated world (`impact12`) is written and packed under FOLDER where it is not there yet. Every row pretrains the
backbone of `demo-pretrain` from random weights on the split `pretrain`, without labels, for as many steps as cost
`--cpu-seconds` of processor time on one core, counted beforehand; then a linear probe reads the frozen features:
fitted on `train`, its regulariser chosen on `val`, scored on `test`. `untrained` is the same backbone with no step.
Accuracies come with a 95 % t interval over seeds, `gain` is paired by seed with `untrained`. A result that the JSON
file holds already is not computed again.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from held import Held
from modalgate.fusion.backbone import Backbone
from modalgate.launch.building import clip_request, clip_spec
from modalgate.launch.config import load_config
from modalgate.launch.schema import PretrainConfig, TrainConfig
from modalgate.launch.train import train
from modalgate.shards.index import Index, PackSettings, load_index
from modalgate.shards.pack import pack
from modalgate.shards.stream import ClipRequest
from modalgate.shards.world import write_world
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.registry import PRETEXT_TASKS
from modalgate.tasks.features import extract_features
from modalgate.tasks.linear_probe import fit_linear_probe
from modalgate.tasks.splits import labelled, take
from scipy.stats import t as student

CONFIG = load_config("pretrain", "demo-pretrain", ["data.shards=shards"])
assert isinstance(CONFIG, PretrainConfig)
DATA, MODEL, MODALITIES = CONFIG.data, CONFIG.model, tuple(CONFIG.data.modalities)
# As the demo packs.
SETTINGS = PackSettings(modalities=MODALITIES, size=48, fps=8.0, flow_bound=16.0)
# The odd one out needs a fourth segment.
SINGLE = {name: (1.0, {}) for name in PRETEXT_TASKS if name != "odd_one_out"}
MIXTURES: dict[str, dict[str, tuple[float, dict[str, Any]]]] = {
    "demo-pretrain": {name: (task.weight, task.arguments) for name, task in CONFIG.tasks.items()},
    "across_time + cross_modal": {"across_time": (1.0, {}), "cross_modal": (1.0, {})},
    "across_time + leave_one_out": {"across_time": (1.0, {}), "leave_one_out": (1.0, {})},
}
ROWS = {"untrained": {}} | {name: {name: task} for name, task in SINGLE.items()} | MIXTURES

# The index, what is cut from its clips, and by split: the clips, and their labels.
Splits = tuple[Index, ClipRequest, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=4100)
    parser.add_argument("--cpu-seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps: dict[str, int] = {}
    found = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    splits = held_splits(arguments.folder, arguments.clips)
    for name in arguments.rows.split(","):
        for seed in range(arguments.seeds):
            key = f"{name}/{seed}"
            if key not in found:
                if name not in steps:
                    steps[name] = count_steps(ROWS[name], splits, arguments.cpu_seconds)
                found[key] = measure(ROWS[name], seed, splits, steps[name])
                print(key, found[key], flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found, [name for name in ROWS if f"{name}/0" in found]))


def held_splits(folder: Path, clips: int) -> Splits:
    """The index and its clips, decoded once; labels beside the labelled splits'."""
    shards = folder / "shards"
    if not (shards / "index.json").is_file():
        write_world(folder / "world", "impact12", clips)
        pack(folder / "world", shards, SETTINGS)
    index, classes, labels = labelled(load_index(shards), "label")
    request = clip_request(DATA, index)
    held = {}
    for split in ("pretrain", "train", "val", "test"):
        rows = [number for number, sample in enumerate(index.samples) if sample.labels["split"] == split]
        held[split] = (Held(take(index, rows), request, DATA.batch_size), labels[rows])
    return index, request, held | {"classes": len(classes)}


def measure(
    tasks: dict[str, tuple[float, dict[str, Any]]],
    seed: int,
    splits: Splits,
    steps: int,
) -> dict[str, float]:
    """Steps taken, and test accuracies of the probes of the fused and of the joined features."""
    index, request, held = splits
    torch.manual_seed(seed)
    backbone = Backbone(MODALITIES, MODEL)
    if steps:
        objective = _objective(backbone, tasks, splits, steps)
        budget = TrainConfig(
            steps=steps,
            learning_rate=CONFIG.train.learning_rate,
            log_every=100,
            checkpoint_every=10**6,
            best=None,
            threads=1,
        )
        with tempfile.TemporaryDirectory() as scratch:
            train(objective, held["pretrain"][0], budget, Path(scratch) / "run", seed=seed, tracker_mode="disabled")
    spec = clip_spec(request, index)
    features = {split: extract_features([backbone], spec, held[split][0])[0] for split in ("train", "val", "test")}
    scores = {"steps": float(steps)}
    for feature in ("fused", "concat"):
        rows = {split: (rows_of.values[feature], held[split][1]) for split, rows_of in features.items()}
        probe = fit_linear_probe(*rows["train"], held["classes"], validation=rows["val"])
        right = probe.scores(rows["test"][0]).argmax(axis=1) == rows["test"][1]
        scores[feature] = float(right.mean())
    return scores


def _objective(
    backbone: Backbone,
    tasks: dict[str, tuple[float, dict[str, Any]]],
    splits: Splits,
    steps: int,
) -> PretextObjective:
    index, request, _ = splits
    return PretextObjective(backbone, clip_spec(request, index), DATA.segments, tasks, CONFIG.augment, steps)


def count_steps(
    tasks: dict[str, tuple[float, dict[str, Any]]],
    splits: Splits,
    cpu_seconds: float,
) -> int:
    """How many steps take `cpu_seconds` of processor time, by the median of eight, after two that warm up."""
    if not tasks:
        return 0
    objective = _objective(Backbone(MODALITIES, MODEL), tasks, splits, 100).train()
    optimizer = torch.optim.AdamW(objective.parameters())
    batches = splits[2]["pretrain"][0].train(0)
    taken = []
    for _ in range(10):
        began = time.process_time()
        outputs = objective(next(batches))
        loss = sum(value for key, value in outputs.items() if key.endswith("/loss"))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.process_time() - began)
    return round(cpu_seconds / statistics.median(taken[2:]))


def table(found: dict[str, dict[str, float]], names: list[str]) -> str:
    """Markdown: a row per name, in falling order of the fused accuracy."""
    rows = []
    for name in names:
        seeds = [key.rpartition("/")[2] for key in found if key.rpartition("/")[0] == name]
        columns = []
        for feature in ("fused", "concat"):
            values = [found[f"{name}/{seed}"][feature] for seed in seeds]
            gains = [found[f"{name}/{seed}"][feature] - found[f"untrained/{seed}"][feature] for seed in seeds]
            columns += [_interval(values), _interval(gains, signed=True)]
        steps = statistics.mean(found[f"{name}/{seed}"]["steps"] for seed in seeds)
        rows.append((statistics.mean(found[f"{name}/{seed}"]["fused"] for seed in seeds), name, steps, columns))
    lines = ["| tasks | steps | fused | gain | concat | gain |", "|---|---|---|---|---|---|"]
    for _, name, steps, columns in sorted(rows, reverse=True):
        lines.append(f"| {name} | {steps:.0f} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _interval(values: list[float], signed: bool = False) -> str:
    """The mean and the half width of its 95 % interval."""
    mean, sign = statistics.mean(values), "+" if signed else ""
    if len(values) < 2:
        return f"{mean:{sign}.3f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:{sign}.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
