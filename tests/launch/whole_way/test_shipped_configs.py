"""Every shipped config trains, for two steps, on a tiny generated corpus and on every subset of its modalities."""

import json
import math
import shutil
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modalgate.fusion import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.config.load import list_configs, partial_config
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.shards.index.table import load_index, save_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing.pack import pack

TRAINED = ["train.steps=2", "train.log_every=1", "data.batch_size=4", "data.workers=0", "wandb=disabled"]
STUDIED = ["experts.steps=2", "fusion.steps=2", "data.batch_size=4", "data.segments=1", "data.frames=160"]
STUDIED += ["fusion_batch_size=4", "noise=[1.0]", "seeds=1", "jobs=1"]


def options(name: str, shards: Path) -> list[str]:
    """Settings for this corpus: its modalities, labels, positive label and folds."""
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
def test_shipped_config_trains_for_two_steps(corpus: Path, tmp_path: Path, name: str) -> None:
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
def test_smallest_study_runs(corpus: Path, tmp_path: Path, name: str) -> None:
    rows = list(partial_config(name).rows)  # pyright: ignore[reportAttributeAccessIssue]
    others = [f"rows.{row}=null" for row in rows[1:]]
    given = options(name, corpus / "shards")
    kept = given[1].removeprefix("data.modalities=[").removesuffix("]").split(",")
    figures = tmp_path / "figures.json"
    # The corpus has no such columns to learn or to select validation clips by.
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


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 16 clips with every modality that a shipped config names, and every column."""
    root = tmp_path_factory.mktemp("everything")
    lines = ["video,depth,inertial,label,split,group,subject,trial,digit"]
    for number in range(16):
        generator = np.random.default_rng(number)
        bright = 60 + 120 * (number % 2)
        frames = generator.integers(bright - 40, bright + 40, (32, 48, 64, 3)).astype(np.uint8)
        sound = generator.normal(0, 0.1, 16000 * 4).astype(np.float32)
        for folder in ("video", "depth", "inertial"):
            (root / "media" / folder).mkdir(parents=True, exist_ok=True)
        write_video(root / "media" / "video" / f"c{number}.mp4", frames, 8, sound=sound, sound_codec="aac")
        depth = frames[..., 0].astype(np.uint16) * 10
        write_video(root / "media" / "depth" / f"c{number}.mkv", depth, 8, codec="ffv1", pixel_format="gray16le")
        np.savetxt(root / "media" / "inertial" / f"c{number}.csv", generator.normal(size=(200, 6)), delimiter=",")
        label = ("calm", "fight")[number % 2]
        split = ("pretrain", "train", "train", "val", "val", "test", "test", "train")[number // 2]
        lines.append(
            f"video/c{number}.mp4,depth/c{number}.mkv,inertial/c{number}.csv,"
            f"{label},{split},g{number // 2},s{number // 4},t{number // 2 % 4},{number % 2}"
        )
    (root / "media" / "labels.csv").write_text("\n".join(lines) + "\n")
    names = ("rgb", "flow", "audio", "depth", "depth_flow", "inertial")
    settings = PackSettings(names, size=48, fps=8.0, rates={"inertial": 50.0})
    pack(root / "media", root / "shards", settings, workers=1)
    return root / "shards"


def with_only(shards: Path, names: tuple[str, ...], folder: Path) -> Path:
    """The shards as if only these modalities had been found in the recordings."""
    shutil.copytree(shards, folder)
    index = load_index(folder)
    gone = {modality(name).suffix for name in index.modalities if name not in names}
    samples = [
        replace(sample, members={s: place for s, place in sample.members.items() if s not in gone})
        for sample in index.samples
    ]
    present = [replace(s, present={n: c for n, c in s.present.items() if n in names}) for s in index.shards]
    statistics = {name: index.statistics[name] for name in names}
    save_index(replace(index, samples=tuple(samples), shards=tuple(present), statistics=statistics), folder)
    return folder


def subsets(name: str) -> list[tuple[str, ...]]:
    """Every non-empty subset of the modalities that a shipped config names."""
    names: list[str] = list(partial_config(name).data.modalities)
    return list(chain.from_iterable(combinations(names, count) for count in range(1, len(names) + 1)))


# Of each kind the cases that differ: silent clips, one stream of two kinds, none that a task could compare.
FAST = [
    ("surveillance-pretrain", ("rgb", "flow"), 0),
    ("surveillance-pretrain", ("audio",), 0),
    ("surveillance-violence", ("rgb", "flow"), 0),
    ("talking-face-pretrain", ("rgb",), 2),
    ("study-surveillance", ("rgb",), 2),
]


def smallest(name: str, kind: str) -> list[str]:
    """Two steps of everything, on this corpus's label and folds."""
    if kind != "study":
        given = TRAINED + (["positive=fight"] if kind == "finetune" else [])
    else:
        rows = list(partial_config(name).rows)  # pyright: ignore[reportAttributeAccessIssue]
        given = [*STUDIED, *(f"rows.{row}=null" for row in rows[1:])]
        given[given.index("data.frames=160")] = "data.frames=32" if "utd" in name else "data.frames=160"
    folds, label = partial_config(name).data.folds, partial_config(name).data.label
    # The corpus has the columns that the configs of real sets name, not those of the generated worlds.
    given = [*given, *(["data.label=label"] if label == "violence" else [])]
    return [*given, *(["data.folds=2"] if folds else [])]


def run_on(name: str, names: tuple[str, ...], shards: Path, folder: Path) -> int:
    kind = next(kind for shipped, kind, _ in list_configs() if shipped == name)
    kept = with_only(shards, names, folder / "shards")
    return main([kind, name, f"data.shards={kept}", *smallest(name, kind), f"out={folder}", "name=run"])


@pytest.mark.parametrize(("name", "names", "status"), FAST)
def test_shipped_config_adapts_to_the_modalities_of_clips(
    everything: Path,
    tmp_path: Path,
    name: str,
    names: tuple[str, ...],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_on(name, names, everything, tmp_path) == status
    said = capsys.readouterr().err
    missing = set(partial_config(name).data.modalities) - set(names)
    assert all(said.count(f"'{other}' is in no clip") == 1 for other in missing) or status
    if status:
        # What the clips hold, in one line.
        (line,) = [line for line in said.splitlines() if line.startswith("error")] or [said.splitlines()[-1]]
        assert names[0] in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "names"), [(name, names) for name, _, _ in list_configs() for names in subsets(name)]
)
def test_every_config_on_every_subset(everything: Path, tmp_path: Path, name: str, names: tuple[str, ...]) -> None:
    """Two steps, or a one-line error if there are too few modalities to compare."""
    kind = next(kind for shipped, kind, _ in list_configs() if shipped == name)
    fewest = 2 if kind == "study" or name == "talking-face-pretrain" else 1
    assert run_on(name, names, everything, tmp_path) == (0 if len(names) >= fewest else 2)
