"""The gain of each pretext task for a linear probe, at equal compute, over seeds.

    .venv/bin/python benchmarks/learning/pretext_worth.py FOLDER [--rows cross_modal] [--seeds 5] [--json FILE]

A generated world (`impact12`) is written and packed under FOLDER if missing. Every row pretrains the backbone of
`demo-pretrain` from random weights on the split `pretrain`, without labels, for the processor time of `--steps`
steps of cross-modal contrast. The cost of a step of each row is measured beforehand on one core. A GPU is
used for training and probing if there is one. A linear probe then reads the frozen features: fitted on `train`, its
regulariser chosen on `val`, scored on `test` (or on `val`, to choose a mixture).

`untrained` is the same backbone without a step. Accuracies have a 95 % t interval over seeds. `gain` is paired by
seed with `untrained`. Costs and results already in the JSON file are not measured again.
"""

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from held import Held, total_loss
from modalgate.fusion.backbone import Backbone
from modalgate.launch.config.load import load_config
from modalgate.launch.jobs.building import clip_request
from modalgate.launch.schema import PretrainConfig, TrainConfig
from modalgate.launch.training.loop import train
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest
from modalgate.shards.worlds.write_world import write_world
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS
from modalgate.tasks.features.extract import extract_features
from modalgate.tasks.probes.linear_probe import fit_linear_probe
from modalgate.tasks.splits.splits import labelled, take
from scipy.stats import t as student

CONFIG = load_config("pretrain", "demo-pretrain", ["data.shards=shards"])
assert isinstance(CONFIG, PretrainConfig)
DATA, MODEL, MODALITIES = CONFIG.data, CONFIG.model, tuple(CONFIG.data.modalities)
# As the demo packs.
SETTINGS = PackSettings(modalities=MODALITIES, size=48, fps=8.0, flow_bound=16.0)
SINGLE = {name: (1.0, {}) for name in PRETEXT_TASKS}
# odd_one_out needs a fourth segment, and pace needs frames to skip. Both are probed like all others.
CUT = {
    "odd_one_out": replace(DATA, segments=4),
    "pace": replace(DATA, segments=2, seconds=1.5, frames=2 * DATA.frames),
}
MIXTURES: dict[str, dict[str, tuple[float, dict[str, Any]]]] = {
    "demo-pretrain": {name: (task.weight, task.arguments) for name, task in CONFIG.tasks.items()},
    "across_time + cross_modal": {"across_time": (1.0, {}), "cross_modal": (1.0, {})},
    "across_time + leave_one_out": {"across_time": (1.0, {}), "leave_one_out": (1.0, {})},
}
REFERENCE = "cross_modal"
ROWS = {"untrained": {}} | {name: {name: task} for name, task in SINGLE.items()} | MIXTURES

# The index, what is cut from its clips, and by split: the clips, and their labels.
Splits = tuple[Index, ClipRequest, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=4100)
    parser.add_argument("--steps", type=int, default=150, help="of cross_modal; the others' cost as much")
    parser.add_argument("--scored", choices=("val", "test"), default="test")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    costs: dict[str, float] = known.get("costs", {})
    found: dict[str, dict[str, float]] = known.get("results", {})
    splits = held_splits(arguments.folder, arguments.clips)
    names = arguments.rows.split(",")
    new = [name for name in names if name not in costs and ROWS[name]]
    costs |= relative_costs(new, splits)
    for seed, name in itertools.product(range(arguments.seeds), names):
        if f"{name}/{seed}" in found:
            continue
        steps = round(arguments.steps / costs[name]) if ROWS[name] else 0
        found[f"{name}/{seed}"] = measure(name, seed, splits, steps, arguments.scored)
        print(name, seed, found[f"{name}/{seed}"], flush=True)
        if arguments.json:
            text = json.dumps({"costs": costs, "results": found}, indent=1)
            arguments.json.write_text(text + "\n", encoding="utf-8")
    print(table(found, [name for name in ROWS if f"{name}/0" in found]))


def held_splits(folder: Path, clips: int) -> Splits:
    """The index and its clips, decoded once, with the labels of the labelled splits."""
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


def measure(name: str, seed: int, splits: Splits, steps: int, scored: str = "test") -> dict[str, float]:
    """Steps taken, and accuracies on the split `scored` of the probes of the fused and of the joined features."""
    index, request, held = splits
    torch.manual_seed(seed)
    backbone = Backbone(MODALITIES, MODEL)
    if steps:
        objective, stream = _objective(backbone, name, splits, steps)
        budget = TrainConfig(
            steps=steps,
            learning_rate=CONFIG.train.learning_rate,
            log_every=100,
            checkpoint_every=10**6,
            best=None,
            threads=1,
        )
        with tempfile.TemporaryDirectory() as scratch:
            train(objective, stream, budget, Path(scratch) / "run", seed=seed, tracker_mode="disabled")
    spec = ClipSpec.of(index, request)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = {
        split: extract_features([backbone], spec, held[split][0], device)[0] for split in ("train", "val", "test")
    }
    scores = {"steps": float(steps)}
    for feature in ("fused", "concat"):
        rows = {split: (rows_of.values[feature], held[split][1]) for split, rows_of in features.items()}
        probe = fit_linear_probe(*rows["train"], held["classes"], validation=rows["val"])
        right = probe.scores(rows[scored][0]).argmax(axis=1) == rows[scored][1]
        scores[feature] = float(right.mean())
    return scores


def _objective(backbone: Backbone, name: str, splits: Splits, steps: int) -> tuple[PretextObjective, Held]:
    """A row's tasks, and the unlabelled clips cut as they want them."""
    index, request, held = splits
    stream = held["pretrain"][0]
    if name in CUT:
        request = clip_request(CUT[name], index)
        if name not in held:
            rows = [number for number, sample in enumerate(index.samples) if sample.labels["split"] == "pretrain"]
            held[name] = Held(take(index, rows), request, DATA.batch_size)
        stream = held[name]
    spec = ClipSpec.of(index, request)
    return PretextObjective(backbone, spec, request.segments, ROWS[name], CONFIG.augment, steps), stream


def relative_costs(names: Sequence[str], splits: Splits) -> dict[str, float]:
    """Processor time of a step of each row, over that of a step of cross_modal.

    The rows take turns, and the median over twelve rounds counts: whatever else the machine does
    slows all alike.
    """
    if not names:
        return {}
    rows = {name: _objective(Backbone(MODALITIES, MODEL), name, splits, 100) for name in {*names, REFERENCE}}
    optimizers = {name: torch.optim.AdamW(objective.train().parameters()) for name, (objective, _) in rows.items()}
    batches = {name: stream.train(0) for name, (_, stream) in rows.items()}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(14):
        taken = {}
        for name, (objective, _) in rows.items():
            batch = next(batches[name])
            began = time.process_time()
            total_loss(objective(batch)).backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            taken[name] = time.process_time() - began
        for name in names:
            ratios[name].append(taken[name] / taken[REFERENCE])
    return {name: statistics.median(values[2:]) for name, values in ratios.items()}


def table(found: dict[str, dict[str, float]], names: list[str]) -> str:
    """Markdown: a row per name, in falling order of the fused accuracy."""
    rows = []
    for name in names:
        seeds = [key.rpartition("/")[2] for key in found if key.rpartition("/")[0] == name]
        columns = []
        for feature in ("fused", "concat"):
            values = [found[f"{name}/{seed}"][feature] for seed in seeds]
            gains = [found[f"{name}/{seed}"][feature] - found[f"untrained/{seed}"][feature] for seed in seeds]
            columns += [interval(values), interval(gains, signed=True)]
        steps = statistics.mean(found[f"{name}/{seed}"]["steps"] for seed in seeds)
        rows.append((statistics.mean(found[f"{name}/{seed}"]["fused"] for seed in seeds), name, steps, columns))
    lines = ["| tasks | steps | fused | gain | concat | gain |", "|---|---|---|---|---|---|"]
    for _, name, steps, columns in sorted(rows, reverse=True):
        lines.append(f"| {name} | {steps:.0f} | {' | '.join(columns)} |")
    return "\n".join(lines)


def interval(values: list[float], signed: bool = False) -> str:
    """The mean and the half width of its 95 % t interval."""
    mean, sign = statistics.mean(values), "+" if signed else ""
    if len(values) < 2:
        return f"{mean:{sign}.3f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:{sign}.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
