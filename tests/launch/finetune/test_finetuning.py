"""Fine-tuning from the command line: choices on validation clips, trials, and multilabel clips."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion.bundle.bundle import load_bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.cli import main
from modalgate.launch.finetune import finetuning
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import latest_checkpoint, load_checkpoint
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import load_index, save_index
from modalgate.tasks.evaluation.scores import load_scores
from modalgate.tasks.evaluation.validation_choices import ON_VALIDATION, OUT_OF_FOLD
from modalgate.tasks.metrics.multilabel import class_thresholds
from modalgate.tasks.records import load_result
from torch import nn
from torch.nn.modules.module import register_module_forward_hook


def options(corpus: Path, few: list[str], name: str) -> list[str]:
    return [f"data.shards={corpus / 'shards'}", f"out={corpus / 'runs'}", f"name={name}", *few]


@pytest.mark.slow
def test_validation_clips_choose_threshold_temperature_and_state(
    corpus: Path, few: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Planted: the first step has the lower validation loss, so the best state is not the last one.
    planted = iter((0.25, 0.5))
    monkeypatch.setattr("modalgate.tasks.finetuning.early_stopping.mean_loss", lambda scores: next(planted))
    chosen = ["hold_out=true", "evaluate_every=1", "patience=5", "layer_decay=0.7", "heads_first=0.4"]
    chosen += ["train.learning_rate=0.3", "train.warmup=0"]
    figures = ["--json", str(corpus / "watched.json")]
    assert main(["finetune", "demo-violence", *options(corpus, few, "watched"), *chosen, *figures]) == 0
    assert json.loads((corpus / "watched.json").read_text())["chosen"]["temperature"] > 0
    run = corpus / "runs" / "watched"
    judged, chosen_there = load_result(run / "results" / "finetune.json").tables
    title, rows = chosen_there.title, {row[0]: row[2] for row in chosen_there.rows}
    chances = {row[0]: row[4] for row in judged.rows}
    assert judged.columns[4] == chosen_there.columns[2] == "chance"
    assert chances["auc"] == 0.5
    assert chances["accuracy"] == rows["accuracy at it"] >= 0.5
    assert rows["temperature"] is None
    assert title == "Chosen on validation clips"
    assert {"temperature", "threshold of best F1", "f1 at it"} <= set(rows)
    losses = {m["step"]: m["validation/loss"] for m in read_metrics(run) if "validation/loss" in m}
    assert losses == {1: 0.25, 2: 0.5}
    scores, units, classes = load_scores(run / "results" / "scores.safetensors")
    assert len(scores.keys) == len(units) == len(scores.labels)
    assert "contact" in classes
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, atol=1e-5)
    # The best state is exported, not that of the newest checkpoint.
    assert main(["export", str(run), str(corpus / "best")]) == 0
    assert load_bundle(corpus / "best").provenance["weights"] == "of the step that validation clips chose"


@pytest.mark.slow
def test_averaged_weights_are_exported_and_reported(
    corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "runs" / "averaged"
    assert main(["finetune", "demo-violence", *options(corpus, few, "averaged"), "train.average=0.9"]) == 0
    assert main(["export", str(run), str(corpus / "average")]) == 0
    assert "moving average over 2 steps" in capsys.readouterr().out
    assert "- weights: moving average over 2 steps" in (corpus / "average" / "README.md").read_text()
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    _, last, state = load_checkpoint(checkpoint)
    exported = load_bundle(corpus / "average").model.state_dict()
    names = [name.removeprefix("classifier.") for name in state["average"]]
    assert len(names) > 10
    assert all(torch.equal(exported[name], state["average"][f"classifier.{name}"]) for name in names)
    assert not all(torch.equal(exported[name], last[f"classifier.{name}"]) for name in names)
    # A model that is of other weights than its run says is not exported, in no form.
    bundle = load_bundle(run / "encoder")
    bundle.model.load_state_dict({k.removeprefix("classifier."): v for k, v in last.items() if "classifier." in k})
    save_bundle(bundle, run / "encoder")
    for form in (["other"], ["other.safetensors", "--modality", "rgb"], ["other.pt2", "--format", "torch"]):
        assert main(["export", str(run), str(corpus / form[0]), *form[1:]]) == 3
        assert "differs from checkpoint" in capsys.readouterr().err
        assert not (corpus / form[0]).exists()


@pytest.mark.slow
def test_blending_weighs_every_head_and_removes_its_trials(corpus: Path, few: list[str]) -> None:
    blended = ["aids.blending=0.5", "unimodal_weight=1", "data.modalities=[rgb,audio]"]
    assert main(["finetune", "demo-violence", *options(corpus, few, "blended"), *blended]) == 0
    weights = json.loads((corpus / "runs" / "blended" / "blending.json").read_text())
    assert set(weights) == {"rgb", "audio", "joint"}
    assert sum(weights.values()) == pytest.approx(1)
    assert not list((corpus / "runs").glob("blended-blending-*"))


@pytest.mark.slow
def test_bf16_and_balanced_classes(corpus: Path, few: list[str]) -> None:
    losses, kinds = {}, {}
    for precision in ("fp32", "bf16"):
        chosen = [f"train.precision={precision}", "balanced=true", "data.modalities=[rgb,audio]", "data.segments=1"]
        kinds[precision] = set()
        seen = kinds[precision].add
        hook = register_module_forward_hook(
            lambda part, _, out, seen=seen: seen(out.dtype) if part.training and isinstance(part, nn.Conv2d) else None
        )
        try:
            assert main(["finetune", "demo-violence", *options(corpus, few, precision), *chosen]) == 0
        finally:
            hook.remove()
        run = corpus / "runs" / precision
        # What is computed in half the bits is kept in all of them.
        model = load_bundle(run / "encoder").model
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert np.isfinite(load_scores(run / "results" / "scores.safetensors")[0].probabilities).all()
        losses[precision] = [metrics["label/loss"] for metrics in read_metrics(run) if "label/loss" in metrics]
    assert kinds == {"fp32": {torch.float32}, "bf16": {torch.bfloat16}}
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.05)


def test_the_gate_of_a_decision_is_trained(corpus: Path, few: list[str]) -> None:
    """The last layer of its network starts at zero."""
    more = [*options(corpus, few, "pooled"), "decision=opinion", "train.warmup=0"]
    assert main(["finetune", "demo-violence", *more]) == 0
    model = load_bundle(corpus / "runs" / "pooled" / "encoder").model
    assert isinstance(model, Classifier)
    assert model.decision is not None
    assert model.decision.network[-1].weight.abs().max() > 0  # pyright: ignore


@pytest.mark.parametrize(("name", "choice"), [("cross", "model.fusion=cross"), ("evidential", "decision=evidential")])
def test_token_fusions_and_decisions_train_and_are_saved(
    corpus: Path, few: list[str], name: str, choice: str, tmp_path: Path
) -> None:
    config = tmp_path / "plain.yaml"
    config.write_text(
        "kind: finetune\ntask: violence\npositive: contact\nmodel: {width: 16}\n"
        "data: {modalities: [rgb, audio], split: train, seconds: 0.75, frames: 6, size: 48}\n"
    )
    assert main(["finetune", str(config), *options(corpus, few, name), choice]) == 0
    model = load_bundle(corpus / "runs" / name / "encoder").model
    assert isinstance(model, Classifier)
    assert name in (model.decision_name, model.backbone.spec.fusion)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["patience=3"], "evaluate_every"),
        (["evaluate_every=1"], "hold_out"),
        (["aids.blending=0.5", "unimodal_weight=0"], "unimodal_weight"),
        (["aids.alternation=0.1"], "set decision=entropy"),
        (["aids.alternation=0.1", "decision=entropy", "aids.pareto=1.5"], "set aids.pareto to 0"),
        (["aids.alternation=0.1", "decision=entropy", "train.strategy=fsdp"], "aids.alternation changes gradients"),
        (["aids.modulation=0.5", "train.strategy=fsdp"], "set train.strategy=ddp"),
        (["aids.relearning=3"], "set hold_out=true"),
        (["aids.relearning=3", "hold_out=true", "final=true"], "remove --final"),
        (["aids.relearning=3", "hold_out=true", "train.average=0.9"], "train.average"),
        (["aids.relearning=3", "hold_out=true", "encoder_learning_rate=0"], "encoder_learning_rate"),
    ],
)
def test_choice_without_its_requirements_is_rejected(
    corpus: Path, few: list[str], wrong: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "demo-violence", *options(corpus, few, "refused"), *wrong]) == 2
    assert says in capsys.readouterr().err
    assert not (corpus / "runs" / "refused").exists()


ENCODER = "{model: timm/convnext_atto, arguments: {depths: [1, 1, 1, 1], dims: [4, 4, 8, 8]}, pooling: mean}"
FOLDED = f"""
kind: finetune
task: action
model: {{width: 8, encoders: {{video: {ENCODER}, audio: {ENCODER}}}}}
data: {{folds: 2, segments: 1, seconds: 0.4, frames: 2, size: 32, batch_size: 4, workers: 0}}
train: {{steps: 2, log_every: 1, threads: 1, precision: fp32}}
wandb: disabled
"""


def records(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("config.yaml"))}


def test_finished_folds_are_not_pooled_with_folds_of_other_settings(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folded.yaml").write_text(FOLDED, encoding="utf-8")
    shutil.copytree(packed, tmp_path / "shards")
    run = tmp_path / "folded"
    start = ["finetune", str(tmp_path / "folded.yaml"), f"out={tmp_path}", "name=folded"]
    command = [*start, f"data.shards={tmp_path / 'shards'}"]
    assert main(command) == 0
    # As if it had been killed in its second fold.
    shutil.rmtree(run / "fold-1" / "encoder")
    before = records(run)
    for more, changed in (
        (["train.steps=3"], "train.steps was 2, is 3"),
        (["train.epochs=1"], "train.epochs was None, is 1.0"),
        (["train.learning_rate=0.1", "--accept", "train.learning_rate"], "train.learning_rate was 0.003, is 0.1"),
    ):
        assert main([*command, *more, "--resume"]) == 2
        said = capsys.readouterr().err
        assert f"'fold-0' of run '{run}' was finished with other settings: {changed}" in said
        assert records(run) == before
    # What changes no weight may change, and the same clips may lie elsewhere.
    assert main([*command, "train.log_every=2", "--resume"]) == 0
    (tmp_path / "shards").rename(tmp_path / "moved")
    moved = [*start, f"data.shards={tmp_path / 'moved'}", "--resume"]
    shutil.rmtree(run / "fold-1" / "encoder")
    assert main([*moved, "--accept", "data.shards"]) == 0
    # Other clips under the same name are other clips.
    index = load_index(tmp_path / "moved")
    shards = (replace(index.shards[0], sha256="0" * 64), *index.shards[1:])
    save_index(replace(index, shards=shards), tmp_path / "moved")
    capsys.readouterr()
    assert main([*moved, "--accept", "data.shards"]) == 2
    assert "fingerprint was" in capsys.readouterr().err


def test_a_fold_that_fails_before_its_first_step_leaves_no_occupied_folder(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folded.yaml").write_text(FOLDED, encoding="utf-8")
    command = ["finetune", str(tmp_path / "folded.yaml"), f"data.shards={packed}", f"out={tmp_path}", "name=folded"]

    def out_of_memory(*arguments: object, **more: object) -> None:
        raise RequestError("not enough memory")

    for failing in ("warn_of_duplicates", "train_classifier"):
        with monkeypatch.context() as patched:
            patched.setattr(finetuning, failing, out_of_memory)
            assert main(command) == 2
        assert not (tmp_path / "folded").exists()


SEVERAL = """
kind: finetune
task: multilabel
model: {width: 8, encoders: {video: ENCODER, audio: ENCODER}}
data: {label: events, folds: 2, segments: 1, seconds: 0.4, frames: 2, size: 32}
""".replace(
    "ENCODER",
    "{model: timm/convnext_atto, arguments: {depths: [1, 1, 1, 1], dims: [4, 4, 8, 8]}, pooling: mean}",
)


@pytest.fixture(scope="module")
def told(several: Path, few: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of two folds whose clips have several classes, and the command that made it."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "several.yaml").write_text(SEVERAL, encoding="utf-8")
    command = ["finetune", str(folder / "several.yaml"), f"data.shards={several}", f"out={folder}", "name=told", *few]
    command += ["hold_out=true", "balanced=true", "train.learning_rate=0.05", "--final"]
    assert main([*command, "--json", str(folder / "told.json")]) == 0
    return folder / "told", command


@pytest.mark.slow
def test_multilabel_classes_are_trained_scored_and_printed_separately(
    told: tuple[Path, list[str]], several: Path, hall_film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = told
    scores, _, classes = load_scores(run / "results" / "scores.safetensors")
    assert classes == ["contact", "odd"]
    assert scores.labels.shape == scores.probabilities.shape == (16, 2)
    assert (np.abs(scores.probabilities.sum(axis=1) - 1) > 1e-3).any()
    figures = json.loads((run.parent / "told.json").read_text())
    assert set(figures["metrics"]) == set(figures["intervals"]) == {"mean_average_precision", "micro_f1", "macro_f1"}
    assert {"micro_f1 at them", "threshold of odd"} <= set(figures["chosen"])
    titles = [table.title for table in load_result(run / "results" / "finetune.json").tables]
    assert titles == ["Test clips", ON_VALIDATION, OUT_OF_FOLD, "Classes"]
    thresholds = dict(zip(classes, class_thresholds(scores.probabilities, scores.labels).tolist(), strict=True))
    assert figures["final"] == {"temperature": None, "thresholds": thresholds}
    final = load_bundle(run / "final" / "encoder")
    assert {name: final.metrics[f"threshold of {name} (out of fold)"] for name in classes} == thresholds
    lines = {}
    assert main(["export", str(run / "fold-1"), str(tmp_path / "model.onnx"), "--format", "onnx"]) == 0
    for name, source in {"run": run / "fold-1", "onnx": tmp_path / "model.onnx"}.items():
        out = tmp_path / f"{name}.jsonl"
        assert main(["predict", str(source), str(hall_film), "--out", str(out)]) == 0
        lines[name] = [json.loads(line)["probabilities"] for line in out.read_text().splitlines()]
    assert [list(line) for line in lines["run"]] == [["contact", "odd"]] * len(lines["onnx"])
    for name in classes:
        assert [line[name] for line in lines["run"]] == pytest.approx(
            [line[name] for line in lines["onnx"]], abs=1e-4
        )
    assert max(abs(sum(line.values()) - 1) for line in lines["run"]) > 1e-3
    planted = load_bundle(run / "fold-1" / "encoder")
    layer = planted.model.head[-1]  # pyright: ignore
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, 2.0)
    save_bundle(planted, tmp_path / "planted")
    out = tmp_path / "planted.jsonl"
    assert main(["predict", str(tmp_path / "planted"), str(hall_film), "--out", str(out)]) == 0
    sigmoid = 1 / (1 + math.exp(-2))
    for line in out.read_text().splitlines():
        assert list(json.loads(line)["probabilities"].values()) == pytest.approx([sigmoid] * 2, abs=1e-3)
    capsys.readouterr()
    assert main(["robustness", str(run), str(several)]) == 2
    assert "predicts several classes per clip" in capsys.readouterr().err
    assert main(["compare", str(run), str(run)]) == 2
    assert main(["report", str(run)]) == 0


@pytest.mark.slow
def test_two_processes_score_finished_folds_as_one(
    told: tuple[Path, list[str]], launch: Callable[..., list[int]]
) -> None:
    run, command = told
    held = run / "results" / "scores.safetensors"
    alone = load_scores(held)
    held.unlink()
    log = run.parent / "log"
    assert launch([*command, "--resume"], 2, log=str(log)) == [0, 0], log.read_text()
    again = load_scores(held)
    assert again[0].keys == alone[0].keys
    # Those were scored by what had just been trained, these by what was read: single last bits differ.
    np.testing.assert_allclose(again[0].probabilities, alone[0].probabilities, rtol=1e-5)
    np.testing.assert_array_equal(again[0].labels, alone[0].labels)
    assert again[1:] == alone[1:]
