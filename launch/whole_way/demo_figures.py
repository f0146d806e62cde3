"""The closing tables of `demo`: frozen features and classifiers, with all sensors and with one broken."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...fusion.bundle.bundle import load_bundle
from ...fusion.classifier import Classifier
from ...shards.index.table import load_index
from ...shards.stream import ClipStream
from ...tasks.metrics.classification import bootstrap_interval, roc_auc
from ...tasks.probes.probe_features import ProbeRow
from ...tasks.records import Cell, Table
from ...tasks.robustness.breakage import Breakage, KeptRow, encode_broken, features_of, probe_broken
from ...tasks.robustness.runner import classifier_answer
from ...tasks.splits.splits import given_split, keep_used
from ..finetune.finetuning import Finetuned
from ..jobs.building import request_of
from ..jobs.probing import Probed

JOINED = ("fused", "concat")


@dataclass(frozen=True)
class Kept:
    """`rows`: probes of frozen features by clip. `before`, `after`: mean gate weights by modality over the test
    clips, with every sensor whole and with one broken. `aucs`: of each run's classifier, (AUC, low, high) with it
    broken.
    """

    rows: list[KeptRow]
    before: dict[str, float]
    after: dict[str, float]
    aucs: dict[str, tuple[float, float, float]]


def measure_kept(encoder: Path, classifiers: Sequence[Path], shards: Path, breakage: Breakage) -> Kept:
    """Probes the encoder's features of the column `label`, and scores `violence` with the classifiers, on the test
    clips.
    """
    bundle, index = load_bundle(encoder / "encoder"), load_index(shards)
    index, (split,) = keep_used(index, [given_split(index, "train", "test")])
    classes = sorted(set(index.column("label")))
    labels = np.array([classes.index(value) for value in index.column("label")])
    stream = ClipStream(index, request_of(bundle), 32, workers=0)
    keys = [sample.key for sample in index.samples]
    clean, broken = (
        features_of(bundle.backbone, clips, keys)
        for clips in encode_broken(bundle.backbone, bundle.spec, stream, breakage)
    )
    before, after = (
        dict(zip(features.modalities, features.weights[split.test].mean(axis=0).tolist(), strict=True))
        for features in (clean, broken)
    )
    rows = probe_broken(clean, broken, labels, len(classes), split)
    return Kept(rows, before, after, {run.name: _broken_auc(run, shards, breakage) for run in classifiers})


def _broken_auc(run: Path, shards: Path, breakage: Breakage) -> tuple[float, float, float]:
    bundle, index = load_bundle(run / "encoder"), load_index(shards).where(split="test")
    model = bundle.model
    assert isinstance(model, Classifier)
    stream = ClipStream(index, request_of(bundle), 32, workers=0)
    _, broken = encode_broken(bundle.backbone, bundle.spec, stream, breakage)
    with torch.no_grad():
        found, _ = classifier_answer(model.eval())(broken.fused(bundle.backbone, bundle.backbone.modalities))
    positive = str(bundle.positive)
    chances = found[:, model.classes.index(positive)].numpy()
    violent = np.array(index.column("violence")) == positive
    units = [sample.key for sample in index.samples]
    low, high = bootstrap_interval(lambda rows: roc_auc(chances[rows], violent[rows]), units, draws=500)
    return roc_auc(chances, violent), low, high


def closing_facts(
    ceilings: dict[str, dict[str, float]],
    probed: Probed,
    classifiers: dict[str, Finetuned],
    kept: Kept,
    broken: str,
) -> dict[str, Any]:
    """The figures of the closing tables as plain values; `ceilings`: of the corpus; `broken`: modality of the
    broken sensor.
    """
    trained, untrained = (
        {row.feature: row for row in rows if isinstance(row, ProbeRow)} for rows in (probed.rows, probed.untrained)
    )
    names = tuple(kept.before)
    left = "+".join(name for name in names if name != broken)
    rows = []
    for row in kept.rows:
        subset = "+".join(names) if row.feature in JOINED else row.feature
        without = left if row.feature in JOINED else row.feature
        low, high = bootstrap_interval(lambda numbers, row=row: float(row.broken[numbers].mean()), _units(row))
        rows.append(
            {
                "feature": row.feature,
                "untrained": untrained[row.feature].accuracy,
                "probe": trained[row.feature].accuracy,
                "interval": [trained[row.feature].low, trained[row.feature].high],
                "ceiling": ceilings[subset]["aware"],
                "broken": float(row.broken.mean()),
                "broken_interval": [low, high],
                # A broken sensor leaves only guessing.
                "broken_ceiling": None if row.feature == broken else ceilings[without]["aware"],
                "gate": kept.before.get(row.feature),
                "gate_broken": kept.after.get(row.feature),
                "clips": len(row.clean),
            }
        )
    violence = {
        name: {
            "accuracy": found.metrics["accuracy"],
            "accuracy_interval": list(found.intervals["accuracy"]),
            "auc": found.metrics["auc"],
            "interval": list(found.intervals["auc"]),
            "broken": kept.aucs[name][0],
            "broken_interval": list(kept.aucs[name][1:]),
            "clips": len(found.scores.keys),
        }
        for name, found in classifiers.items()
    }
    return {"broken": broken, "probe": rows, "violence": violence}


def _units(row: KeptRow) -> list[str]:
    return [str(number) for number in range(len(row.clean))]


def closing_tables(facts: dict[str, Any], labels: int, names: dict[str, str]) -> list[Table]:
    """The figures as tables. `labels`: number of labelled clips; `names`: of the classifiers, by run."""
    broken, clips = facts["broken"], facts["probe"][0]["clips"]
    rows: list[list[Cell]] = [
        [
            {"fused": "fused (gated)"}.get(row["feature"], row["feature"]),
            f"{row['untrained']:.3f}",
            _with_interval(row["probe"], row["interval"]),
            f"{row['ceiling']:.3f}",
            _with_interval(row["broken"], row["broken_interval"]),
            "-" if row["broken_ceiling"] is None else f"{row['broken_ceiling']:.3f}",
            "-" if row["gate"] is None else f"{row['gate']:.2f} to {row['gate_broken']:.2f}",
        ]
        for row in facts["probe"]
    ]
    probes = Table(
        f"8 actions, linear probe of frozen features: {labels} labels, {clips} held-out clips (chance 0.125)",
        ["feature", "untrained", "pretrained [95 %]", "ceiling", f"{broken} broken [95 %]", "ceiling", "gate weight"],
        rows,
        f"{broken} broken: noise of twice the training pictures' deviation, on test clips only; the gate's mean "
        "weight before and then",
    )
    classifiers = Table(
        f"Violence, a classifier from {labels} labels, on {clips} held-out clips (AUC: chance 0.5, ceiling 1)",
        ["training", "accuracy [95 %]", "AUC [95 %]", f"AUC, {broken} broken [95 %]"],
        [
            [
                names[run],
                _with_interval(row["accuracy"], row["accuracy_interval"]),
                _with_interval(row["auc"], row["interval"]),
                _with_interval(row["broken"], row["broken_interval"]),
            ]
            for run, row in facts["violence"].items()
        ],
    )
    return [probes, classifiers]


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
