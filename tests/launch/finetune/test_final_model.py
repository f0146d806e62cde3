"""The final model of a fine-tuning on clips whose class is planted: bright pictures are falls, dark ones are not."""

import csv
import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.final_model import Length, final_length
from modalgate.launch.finetune.recipe import set_up
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.runs.recorded import alarm_threshold
from modalgate.launch.schema import FinetuneConfig
from modalgate.shards.index.table import load_index, save_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.tasks.evaluation.scores import load_scores
from modalgate.tasks.evaluation.validation_choices import calibrate
from modalgate.tasks.records import load_result
from safetensors.torch import save_file

CLIPS, STEPS = 24, 16
CONFIG = """
kind: finetune
task: violence
positive: fall
model: {{width: 8, fusion: static, encoders: {{video: ENCODER}}}}
data: {{shards: {shards}, segments: 1, seconds: 0.4, frames: 2, size: 32, batch_size: 8, workers: 0, folds: 3}}
train: {{steps: 16, learning_rate: 0.02, log_every: 1, checkpoint_every: 3, threads: 1, precision: fp32}}
wandb: disabled
""".replace(
    "ENCODER",
    "{{model: timm/convnext_atto, arguments: {{depths: [1, 1, 1, 1], dims: [4, 4, 8, 8]}}, pooling: mean}}",
)


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `films`, their `shards` without a column `group`, and a `config.yaml` over three folds."""
    folder = tmp_path_factory.mktemp("hall")
    (folder / "films").mkdir()
    generator = np.random.default_rng(0)
    rows = ["video,label"]
    for number in range(CLIPS):
        level = 190 if number % 2 else 40
        pictures = generator.integers(level - 30, level + 30, (10, 40, 40, 3)).astype(np.uint8)
        write_video(folder / "films" / f"{number:02}.mp4", pictures, 10)
        rows.append(f"{number:02}.mp4,{'fall' if number % 2 else 'no fall'}")
    (folder / "films" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    settings = PackSettings(modalities=("rgb",), size=32, fps=10.0)
    pack(folder / "films", folder / "shards", settings, workers=1)
    (folder / "config.yaml").write_text(CONFIG.format(shards=folder / "shards"), encoding="utf-8")
    return folder


def command(hall: Path, name: str, *more: str) -> list[str]:
    return ["finetune", str(hall / "config.yaml"), f"out={hall / 'runs'}", f"name={name}", *more]


@pytest.fixture(scope="module")
def whole(hall: Path) -> Path:
    """A run of three folds with a final model."""
    assert main([*command(hall, "whole", "--final"), "--json", str(hall / "whole.json")]) == 0
    return hall / "runs" / "whole"


@pytest.fixture(scope="module")
def folded(hall: Path, whole: Path) -> Path:
    """The same run without the final model."""
    run = hall / "runs" / "folded"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "final")
    for path in run.rglob("config.yaml"):
        text = path.read_text().replace("name: whole", "name: folded")
        path.write_text(text.replace("final: true", "final: false"))
    return run


def same_weights(first: Path, second: Path) -> bool:
    mine, theirs = (load_bundle(bundle).model.state_dict() for bundle in (first, second))
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_final_model_trains_on_all_clips_and_has_the_metrics_of_the_folds(hall: Path, whole: Path) -> None:
    bundle = load_bundle(whole / "final" / "encoder")
    assert f"all {CLIPS} labelled clips" in bundle.provenance["data"]
    assert {"figures", "calibration", "seen"} <= bundle.provenance.keys()
    # Each fold trains on two thirds of the clips: the same passes over all of them take half as many steps more.
    assert bundle.provenance["steps"] == len(read_metrics(whole / "final")) == STEPS * 3 // 2
    scores, _, classes = load_scores(whole / "results" / "scores.safetensors")
    assert sorted(scores.keys) == sorted(sample.key for sample in load_index(hall / "shards").samples)
    found = calibrate(scores, classes, classes.index("fall"))
    card = {name.partition(" (")[0]: value for name, value in bundle.metrics.items()}
    assert card["temperature"] == pytest.approx(found.temperature)
    assert card["threshold of best F1"] == alarm_threshold(bundle.metrics) == found.thresholds["fall"]
    figures = json.loads((hall / "whole.json").read_text())
    assert figures["final"] == {"temperature": found.temperature, "thresholds": found.thresholds}
    assert all("out of fold" in name for name in bundle.metrics)
    for name in ("accuracy", "auc", "recall_fall", "recall_no_fall"):
        assert card[name] == figures["metrics"][name] == 1.0
    assert not [name for name in figures["metrics"] if "violent" in name or "other" in name]


def test_scores_are_written_as_csv(whole: Path) -> None:
    scores, _, classes = load_scores(whole / "results" / "scores.safetensors")
    with (whole / "results" / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == scores.keys
    assert [row["split"] for row in rows] == [f"fold-{number}" for number in range(3) for _ in range(CLIPS // 3)]
    assert [row["label"] for row in rows] == [row["predicted"] for row in rows]
    for number, name in enumerate(("fall", "no_fall")):
        column = np.array([row[f"probability_{name}"] for row in rows], np.float32)
        np.testing.assert_array_equal(column, scores.probabilities[:, number])
    assert classes == ["fall", "no fall"]
    assert {row["weight_rgb"] for row in rows} == {"1"}


def test_finished_folds_are_printed_and_missing_groups_once(
    hall: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(hall, "whole", "--final", "--resume")) == 0
    told = capsys.readouterr()
    lines = [line for line in told.out.splitlines() if line.startswith("fold-")]
    assert [line.partition(":")[0] for line in lines] == ["fold-0", "fold-1", "fold-2"]
    assert all("accuracy 1.000" in line for line in lines)
    assert told.err.count("no column 'group'") == 1
    assert "of clips without a group" in load_result(whole / "results" / "finetune.json").tables[0].note


def test_run_exports_and_predicts_with_its_final_model(
    hall: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final, lines = load_bundle(whole / "final" / "encoder"), {}
    assert main(["export", str(whole), str(tmp_path / "model")]) == 0
    assert same_weights(tmp_path / "model", whole / "final" / "encoder")
    exported = load_bundle(tmp_path / "model")
    assert exported.metrics == final.metrics
    assert exported.provenance["run"] == "whole/final"
    capsys.readouterr()
    for name, model in (("run", whole), ("bundle", tmp_path / "model")):
        out = tmp_path / f"{name}.jsonl"
        assert main(["predict", str(model), str(hall / "films" / "01.mp4"), "--out", str(out)]) == 0
        lines[name] = [json.loads(line) for line in out.read_text().splitlines() if '"window"' in line]
    assert lines["run"] == lines["bundle"]
    assert min(line["probabilities"]["fall"] for line in lines["run"]) > 0.5
    assert "fold" not in capsys.readouterr().err


@pytest.mark.slow
def test_run_without_a_final_model_uses_a_fold_and_prints_the_command(
    hall: Path, folded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["export", str(folded), str(tmp_path / "model")]) == 0
    told = capsys.readouterr().err
    assert "using fold-0" in told
    assert same_weights(tmp_path / "model", folded / "fold-0" / "encoder")
    assert load_bundle(tmp_path / "model").provenance["run"] == "folded/fold-0"
    film = str(hall / "films" / "00.mp4")
    assert main(["predict", str(folded), film, "--out", str(tmp_path / "p.jsonl")]) == 0
    assert "using fold-0" in capsys.readouterr().err
    assert main(["embed", str(folded), film, str(tmp_path / "f.npz"), "--workers", "0"]) == 0
    assert "using fold-0" in capsys.readouterr().err
    before = (folded / "fold-1" / "encoder" / "encoder.json").stat().st_mtime_ns
    (named,) = re.findall(r"for a final model: modalgate (.*)$", told, re.MULTILINE)
    assert main(shlex.split(named)) == 0
    assert (folded / "fold-1" / "encoder" / "encoder.json").stat().st_mtime_ns == before
    assert same_weights(folded / "final" / "encoder", hall / "runs" / "whole" / "final" / "encoder")


@pytest.mark.slow
def test_final_model_is_not_scored_on_training_clips(
    hall: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, more = str(hall / "shards"), ["--workers", "0", "--axis", "blur"]
    # The run is measured by its folds.
    assert main(["robustness", str(whole), shards, *more, "--json", str(tmp_path / "r.json")]) == 0
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["missing"][-1]["clips"] == CLIPS
    capsys.readouterr()
    for model in (whole / "final", whole / "final" / "encoder"):
        assert main(["robustness", str(model), shards, *more]) == 2
        assert "trained on all labelled clips" in capsys.readouterr().err
    assert main(["probe", str(whole), shards, "--folds", "2", "--workers", "0"]) == 2
    assert "trained on all labelled clips" in capsys.readouterr().err
    tuned = command(hall, "again", f"encoder={whole / 'final' / 'encoder'}", "model=null")
    assert main(tuned) == 2
    assert not (hall / "runs" / "again").exists()
    assert main(["report", str(whole), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "recall_fall" in page
    assert page.index("Losses, fold-0") < page.index("Losses, final")
    assert main(["compare", str(whole), str(whole)]) == 0


@pytest.mark.slow
def test_killed_and_resumed_run_ends_with_the_same_weights(
    hall: Path, folded: Path, whole: Path, launch: Callable[..., list[int]]
) -> None:
    run = hall / "runs" / "killed"
    shutil.copytree(folded, run, ignore=shutil.ignore_patterns("final"))
    for path in run.rglob("config.yaml"):
        path.write_text(path.read_text().replace("name: folded", "name: killed"))
    again = command(hall, "killed", "--final", "--resume")
    assert launch(again, kill=STEPS, run=str(run / "final")) == [-signal.SIGKILL]
    assert list((run / "final" / "checkpoints").glob("step-*"))
    assert not (run / "final" / "encoder").exists()
    log = hall / "log"
    assert launch(again, log=str(log)) == [0], log.read_text()
    assert same_weights(run / "final" / "encoder", whole / "final" / "encoder")
    assert [line["step"] for line in read_metrics(run / "final")] == list(range(1, STEPS * 3 // 2 + 1))


@pytest.mark.slow
def test_two_processes_train_the_final_model_together(hall: Path, launch: Callable[..., list[int]]) -> None:
    log = hall / "together.log"
    more = ["train.steps=2", "data.folds=2", "evaluate_every=1", "hold_out=true", "--final"]
    assert launch(command(hall, "together", *more), 2, log=str(log)) == [0, 0], log.read_text()
    bundle = load_bundle(hall / "runs" / "together" / "final" / "encoder")
    assert bundle.provenance["steps"] == read_metrics(hall / "runs" / "together" / "final")[-1]["step"]
    assert log.read_text().count("fold-1: 12 clips") == 1


@pytest.mark.slow
def test_single_split_is_scored_before_the_final_model_replaces_it(hall: Path, tmp_path: Path) -> None:
    index = load_index(hall / "shards")
    shards = tmp_path / "shards"
    shutil.copytree(hall / "shards", shards)
    names = ["train", "train", "train", "val", "test", "test"]
    places = {sample.key: int(sample.key) for sample in index.samples}
    samples = [
        replace(s, labels=s.labels | {"split": names[places[s.key] // 2 % 6]})
        if places[s.key] < 22
        else replace(s, labels=s.labels | {"split": "elsewhere"})
        for s in index.samples
    ]
    save_index(replace(index, samples=tuple(samples)), shards)
    more = [f"data.shards={shards}", "data.folds=0", "data.split=train", f"out={tmp_path}", "hold_out=true"]
    assert main(["finetune", str(hall / "config.yaml"), *more, "name=split", "--final"]) == 0
    run = tmp_path / "split"
    final = load_bundle(run / "final" / "encoder")
    # Clips of no split of the evaluation are not among them.
    assert "all 22 labelled clips" in final.provenance["data"]
    assert all("held out" in name for name in final.metrics)
    # The evaluated model stays where it was.
    assert "calibration" not in load_bundle(run / "encoder").provenance
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    assert load_bundle(tmp_path / "model").provenance["run"] == "split/final"
    scores, _, _ = load_scores(run / "results" / "scores.safetensors")
    assert {names[places[key] // 2 % 6] for key in scores.keys} == {"test"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["data.fold=0"], "data.fold"),
        (["data.fraction=0.5"], "data.fraction"),
    ],
)
def test_settings_unfit_for_a_final_model_are_rejected_before_training(
    hall: Path, wrong: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(hall, "refused", "--final", *wrong)) == 2
    assert says in capsys.readouterr().err
    assert not (hall / "runs" / "refused").exists()


@pytest.mark.slow
def test_final_model_starts_from_an_encoder_of_all_clips(
    hall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = CONFIG.partition("model:")[2].partition("data:")[0].format()
    (tmp_path / "pretrain.yaml").write_text(
        f"kind: pretrain\nmodel:{model}tasks: {{clip_order: {{}}}}\nwandb: disabled\ntrain: {{steps: 1}}\n"
        f"data: {{shards: {hall / 'shards'}, segments: 3, seconds: 0.2, frames: 2, size: 32, batch_size: 8, "
        "workers: 0, folds: 3}\n"
    )
    pretrained = tmp_path / "pretrained"
    assert main(["pretrain", str(tmp_path / "pretrain.yaml"), f"out={tmp_path}", "name=pretrained"]) == 0
    capsys.readouterr()
    tuned = ["finetune", str(hall / "config.yaml"), f"encoder={pretrained}", "model=null", f"out={tmp_path}"]
    tuned += ["name=tuned", "train.steps=1", "train.learning_rate=0", "--final"]
    assert main(tuned) == 2
    told = capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()
    assert main(shlex.split(re.findall(r"`modalgate (.*?)`", told)[0])) == 0
    assert main(tuned) == 0
    # Nothing moved: what it ends with is what it began with.
    start, end = (load_bundle(place / "final" / "encoder").backbone for place in (pretrained, tmp_path / "tuned"))
    assert all(map(torch.equal, start.parameters(), end.parameters()))


def recipe_of(hall: Path, *more: str) -> Any:
    config = load_config("finetune", str(hall / "config.yaml"), list(more))
    assert isinstance(config, FinetuneConfig)
    return set_up(config, [])


def test_final_length_follows_epochs_and_validated_steps(hall: Path, tmp_path: Path) -> None:
    from modalgate.launch.jobs.building import config_splits

    recipe = recipe_of(hall, "hold_out=true", "evaluate_every=1")
    splits = config_splits(recipe.config.data, recipe.index, 0, recipe.strata)
    trained = [len(recipe.watched(split).train) for split in splits]
    total = round(np.mean([STEPS * CLIPS / count for count in trained]))
    folders = [tmp_path / split.name for split in splits]
    assert final_length(recipe, splits, folders, CLIPS) == Length(total, total)
    for number, folder in enumerate(folders):
        losses = {step: abs(step - 4 * (number + 1)) + 0.1 for step in range(1, STEPS + 1)}
        folder.mkdir()
        save_file({"x": torch.zeros(1)}, folder / "best.safetensors", {"losses": json.dumps(losses)})
    # Steps 4, 8 and 12 of 16: half, in the mean.
    assert final_length(recipe, splits, folders, CLIPS) == Length(total, round(total / 2))
    # Epochs are passes already: 24 clips in 3 batches of 8.
    epochs = recipe_of(hall, "train.epochs=5")
    assert final_length(epochs, splits, [tmp_path] * 3, CLIPS) == Length(15, 15)


@pytest.mark.slow
def test_early_stopping_keeps_the_schedule_of_all_steps(hall: Path) -> None:
    more = ["hold_out=true", "evaluate_every=1", "data.folds=2", "train.steps=4", "train.average=0.9"]
    more += ["train.best=validation/loss", "--final"]
    assert main(command(hall, "early", *more)) == 0
    run = hall / "runs" / "early"
    lines = [line for line in read_metrics(run / "final") if "learning_rate" in line]
    recipe = recipe_of(hall, *more[:-1])
    from modalgate.launch.jobs.building import config_splits

    splits = config_splits(recipe.config.data, recipe.index, 0, recipe.strata)
    length = final_length(recipe, splits, [run / split.name for split in splits], CLIPS)
    assert lines[-1]["step"] == length.until == load_bundle(run / "final" / "encoder").provenance["steps"]
    # Where it resumes it is finished, also without its bundle.
    shutil.rmtree(run / "final" / "encoder")
    assert main(command(hall, "early", *more, "--resume")) == 0
    assert [line["step"] for line in read_metrics(run / "final") if "learning_rate" in line] == [
        line["step"] for line in lines
    ]
