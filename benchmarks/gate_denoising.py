"""Do the weights of a gate that learned by denoising follow true corruption, without a label?

    .venv/bin/python benchmarks/gate_denoising.py FOLDER [--steps 300] [--seeds 3] [--json FILE]

The shards and the backbone of `pretext_worth.py`, whose gate is given each stream's measured quality. Two mixtures
train on the split `pretrain`: the demo's, and the demo's with `gate_denoising`. Then one stream of every test segment
is corrupted at a severity uniform in (0, 1), by each corruption in turn; blur is never trained on. Printed:
Spearman's correlation of severity with how far the stream's share of the weight falls below that in the clean
segment.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import pretext_worth as worth
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.launch.building import clip_spec
from modalgate.launch.schema import TrainConfig
from modalgate.launch.train import train
from modalgate.shards.transforms import Preparation
from modalgate.ssl.corruption import CORRUPTIONS, TRAINED
from modalgate.ssl.objective import PretextObjective
from scipy.stats import spearmanr

DEMO = worth.MIXTURES["demo-pretrain"]
ROWS = {"demo-pretrain": DEMO, "with gate_denoising": DEMO | {"gate_denoising": (2.0, {})}}
MODEL = replace(worth.MODEL, fusion="softmax", fusion_arguments={"balance": 0.1, "quality": 2})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=4100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    splits = worth.held_splits(arguments.folder, arguments.clips)
    found: dict[str, dict[str, list[float]]] = {}
    for row in ROWS:
        for seed in range(arguments.seeds):
            for kind, correlation in measure(row, seed, splits, arguments).items():
                found.setdefault(row, {}).setdefault(kind, []).append(correlation)
        cells = [f"{kind} {statistics.mean(values):+.2f}" for kind, values in found[row].items()]
        print(f"{row:22} {'  '.join(cells)}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(row: str, seed: int, splits: worth.Splits, arguments: argparse.Namespace) -> dict[str, float]:
    """Spearman's correlation by corruption, over those trained on (`trained`), and of `blur`."""
    index, request, held = splits
    torch.manual_seed(seed)
    backbone = Backbone(worth.MODALITIES, MODEL)
    spec = clip_spec(request, index)
    objective = PretextObjective(
        backbone, spec, worth.DATA.segments, ROWS[row], worth.CONFIG.augment, arguments.steps
    )
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
    pairs = {kind: follow(backbone.eval(), Preparation(spec), held["test"][0], kind) for kind in CORRUPTIONS}
    trained = torch.cat([pairs[kind] for kind in TRAINED])
    scores = {kind: _spearman(rows) for kind, rows in pairs.items()}
    return {"trained": _spearman(trained)} | scores


@torch.no_grad()
def follow(backbone: Backbone, preparation: Preparation, clips: worth.Held, kind: str) -> torch.Tensor:
    """Severity, and the fall of the share of the weight, of one corrupted stream per segment, (N, 2)."""
    generator = torch.Generator().manual_seed(1)
    rows = []
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
        shares = _shares(backbone(altered, batch.present, batch.start).weights)
        fall = (clean - shares).gather(-1, chosen[..., None])[..., 0]
        rows.append(torch.stack([severity, fall], dim=-1).flatten(0, 1))
    return torch.cat(rows)


def _shares(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)


def _spearman(rows: torch.Tensor) -> float:
    return float(spearmanr(rows[:, 0], rows[:, 1]).statistic)


if __name__ == "__main__":
    main()
