"""Every shipped config trains, for two steps, on a tiny generated corpus."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from modalgate.fusion import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.config import list_configs, partial_config
from modalgate.launch.tracking import read_metrics
from modalgate.shards.index import load_index

TRAINED = ["train.steps=2", "train.log_every=1", "data.batch_size=4", "data.workers=0", "wandb=disabled"]
STUDIED = ["experts.steps=2", "fusion.steps=2", "data.batch_size=4", "data.segments=1", "data.frames=160"]
STUDIED += ["fusion_batch_size=4", "noise=[1.0]", "seeds=1", "jobs=1"]


def options(name: str, shards: Path) -> list[str]:
    """What this corpus asks for: modalities and labels it has, its positive label, folds it has groups for."""
    config: Any = partial_config(name)
    index = load_index(shards)
    kept = [modality for modality in config.data.modalities if modality in index.modalities]
    # A study of one modality fuses nothing.
    kept = kept if len(kept) > 1 else index.modalities
    settings = [f"data.shards={shards}", f"data.modalities=[{','.join(kept)}]"]
    if config.get("positive"):
        settings.append("positive=contact")
    if config.data.label not in index.columns:
        settings.append("data.label=label")
    if config.data.folds:
        settings.append("data.folds=2")
    return settings


@pytest.mark.parametrize("name", [name for name, kind, _ in list_configs() if kind != "study"])
def test_it_trains_for_two_steps(corpus: Path, tmp_path: Path, name: str) -> None:
    kind = next(kind for shipped, kind, _ in list_configs() if shipped == name)
    assert main([kind, name, *options(name, corpus / "shards"), *TRAINED, f"out={tmp_path}", "name=run"]) == 0
    folders = [path.parent for path in (tmp_path / "run").rglob("metrics.jsonl")]
    assert folders
    for folder in folders:
        lines = read_metrics(folder)
        assert [line["step"] for line in lines] == [1, 2]
        assert all(math.isfinite(line["loss"]) for line in lines)
        assert load_bundle(folder / "encoder").backbone.modalities


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, kind, _ in list_configs() if kind == "study"])
def test_a_study_runs_in_its_smallest_form(corpus: Path, tmp_path: Path, name: str) -> None:
    rows = list(partial_config(name).rows)  # pyright: ignore[reportAttributeAccessIssue]
    others = [f"rows.{row}=null" for row in rows[1:]]
    given = options(name, corpus / "shards")
    kept = given[1].removeprefix("data.modalities=[").removesuffix("]").split(",")
    figures = tmp_path / "figures.json"
    # The corpus has no columns of its own to learn or to take validation clips by.
    smallest = [
        *STUDIED,
        *others,
        "validation_group=null",
        "data.label=label",
        f"data.modalities=[{kept[0]},{kept[-1]}]",
    ]
    smallest += [f"out={tmp_path}", "--json", str(figures)]
    assert main(["study", name, *given, *smallest]) == 0
    assert list(json.loads(figures.read_text())) == [kept[0], kept[-1], rows[0]]
