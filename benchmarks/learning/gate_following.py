"""Whether the weights of a gate trained by denoising follow corruption, without a label.

    .venv/bin/python benchmarks/learning/gate_following.py FOLDER [--steps 120] [--seeds 3] [--json FILE]

Shards and backbone are those of `pretext_worth.py`. Three rows train on the split `pretrain`, without labels: the
demo's mixture with a gate that reads each stream's measured quality, the same with `gate_denoising`, and that with
a gate that reads no quality. Then one stream of every segment of the split `--scored` is corrupted at a severity
uniform in (0, 1), by each corruption. Blur is never trained on.

Prints Spearman's correlation of severity with the fall of the stream's share of the weight below that in the clean
segment, and the accuracy of a linear probe, fitted on clean fused features of `train`, on clean and on corrupted
segments. 95 % t intervals over seeds. Results already in the JSON file are not measured again.
"""

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretext_worth as worth
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.mechanisms.quality import MEASURES
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.loop import train
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.transforms import Preparation
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.views.corruption import CORRUPTIONS, TRAINED
from modalgate.tasks.features.extract import extract_features
from modalgate.tasks.probes.linear_probe import fit_linear_probe
from numpy.typing import NDArray
from scipy.stats import spearmanr

DEMO = worth.MIXTURES["demo-pretrain"]
DENOISING = DEMO | {"gate_denoising": (2.0, {})}
UNTOLD = {"balance": 0.1}
TOLD = UNTOLD | {"quality": MEASURES}
# Tasks, and whether the gate gets the measured quality.
ROWS = {
    "demo-pretrain": (DEMO, True),
    "with gate_denoising": (DENOISING, True),
    "with gate_denoising, told nothing": (DENOISING, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=4100)
    parser.add_argument("--scored", choices=("val", "test"), default="test")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    splits = worth.held_splits(arguments.folder, arguments.clips)
    found = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    for seed, row in itertools.product(range(arguments.seeds), ROWS):
        if f"{row}/{seed}" in found:
            continue
        found[f"{row}/{seed}"] = measure(row, seed, splits, arguments)
        print(row, seed, found[f"{row}/{seed}"], flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found, arguments.seeds))


def measure(row: str, seed: int, splits: worth.Splits, arguments: argparse.Namespace) -> dict[str, float]:
    """Spearman's correlation over all corruptions trained on, and by corruption; accuracies of the probe."""
    index, request, held = splits
    tasks, told = ROWS[row]
    torch.manual_seed(seed)
    backbone = Backbone(worth.MODALITIES, replace(worth.MODEL, fusion_arguments=TOLD if told else UNTOLD))
    spec = ClipSpec.of(index, request)
    objective = PretextObjective(backbone, spec, worth.DATA.segments, tasks, worth.CONFIG.augment, arguments.steps)
    budget = TrainConfig(
        steps=arguments.steps,
        learning_rate=worth.CONFIG.train.learning_rate,
        log_every=100,
        checkpoint_every=10**6,
        best=None,
        threads=arguments.threads,
    )
    with tempfile.TemporaryDirectory() as scratch:
        train(objective, held["pretrain"][0], budget, Path(scratch) / "run", seed=seed, tracker_mode="disabled")
    clips, labels = held[arguments.scored]
    followed = {kind: follow(backbone.eval(), Preparation(spec), clips, kind) for kind in CORRUPTIONS}
    pairs = {kind: rows for kind, (rows, _) in followed.items()}
    joined = {"those trained on": torch.cat([pairs[kind] for kind in TRAINED])}
    found = {kind: float(spearmanr(*rows.T).statistic) for kind, rows in (joined | pairs).items()}
    clean = {
        split: extract_features([backbone], spec, held[split][0])[0].values["fused"] for split in ("train", "val")
    }
    probe = fit_linear_probe(
        clean["train"], held["train"][1], held["classes"], validation=(clean["val"], held["val"][1])
    )
    whole = extract_features([backbone], spec, clips)[0].values["fused"]
    right = {kind: float((probe.scores(fused).argmax(1) == labels).mean()) for kind, (_, fused) in followed.items()}
    found["probe, clean"] = float((probe.scores(whole).argmax(1) == labels).mean())
    return found | {"probe, corrupted": sum(right.values()) / len(right), "probe, blurred": right["blur"]}


def table(found: dict[str, dict[str, float]], seeds: int) -> str:
    """Markdown: a column per corruption."""
    kinds = next(iter(found.values()))
    lines = [f"| pretrained by | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for row in ROWS:
        values = {kind: [found[f"{row}/{seed}"][kind] for seed in range(seeds)] for kind in kinds}
        cells = [worth.interval(values[kind], signed="probe" not in kind) for kind in kinds]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


@torch.no_grad()
def follow(
    backbone: Backbone, preparation: Preparation, clips: worth.Held, kind: str
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """Severity, and the fall of the share of the weight, of one corrupted stream per segment, (N, 2); the clips' mean
    fused embedding under it."""
    generator = torch.Generator().manual_seed(1)
    rows, fused = [], []
    for batch in clips.evaluate():
        streams = preparation(batch)
        clean = _shares(backbone(streams, batch.present, batch.start).weights)
        shape = clean.shape[:2]
        chosen = torch.randint(len(backbone.modalities), shape, generator=generator)
        severity = torch.rand(shape, generator=generator)
        altered = {name: stream.clone() for name, stream in streams.items()}
        for clip, segment in torch.cartesian_prod(torch.arange(shape[0]), torch.arange(shape[1])).tolist():
            stream = altered[backbone.modalities[int(chosen[clip, segment])]]
            level = float(severity[clip, segment])
            stream[clip, segment] = CORRUPTIONS[kind](stream[clip, segment], level, generator)
        encoded = backbone(altered, batch.present, batch.start)
        shares = _shares(encoded.weights)
        fused.append(encoded.embedding.mean(dim=1).numpy())
        fall = (clean - shares).gather(-1, chosen[..., None])[..., 0]
        rows.append(torch.stack([severity, fall], dim=-1).flatten(0, 1))
    return torch.cat(rows), np.concatenate(fused)


def _shares(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)


if __name__ == "__main__":
    main()
