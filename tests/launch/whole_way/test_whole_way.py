"""From media files to an exported classifier from the command line, on a tiny corpus; and errors."""

import json
import os
import shutil
from pathlib import Path

import pytest
from modalgate.fusion import load_bundle
from modalgate.launch.cli import main
from modalgate.tasks.records import load_result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..given.wandb_file import read_history


def test_probe_compares_every_feature_with_the_untrained_encoder(corpus: Path) -> None:
    figures = corpus / "probe.json"
    run = corpus / "runs" / "demo-pretrain"
    assert main(["probe", str(run), str(corpus / "shards"), "--workers", "0", "--json", str(figures)]) == 0
    content = json.loads(figures.read_text())
    features = ["fused", "rgb", "flow", "depth", "audio", "concat"]
    assert [row["feature"] for row in content["rows"]] == features
    assert [row["feature"] for row in content["untrained"]] == features
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in content["rows"])
    assert sum(content["gates"].values()) == pytest.approx(1, abs=1e-4)
    assert load_result(run / "results" / "probe.json").tables[0].columns[0] == "feature"
    shown = EventAccumulator(str(run / "tensorboard")).Reload().Tags()
    assert {"training/Gate weights", "probe/Mean gate weight by class"} <= set(shown["images"])
    assert {"training/Tasks/text_summary", "probe/Frozen features/text_summary"} <= set(shown["tensors"])

    # The second reading takes both encoders' features, and the hashes, from the run folder, and says the same.
    kept = {path: path.stat().st_mtime_ns for path in (run / "features").iterdir()}
    assert len(kept) == 3
    assert "frame-hashes.safetensors" in {path.name for path in kept}
    assert main(["probe", str(run), str(corpus / "shards"), "--workers", "0", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text()) == content
    assert {path: path.stat().st_mtime_ns for path in (run / "features").iterdir()} == kept


def test_finetune_export_predict_and_report(corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    encoder, runs = corpus / "runs" / "demo-pretrain" / "encoder", corpus / "runs"
    options = [f"data.shards={corpus / 'shards'}", f"encoder={encoder}", f"out={runs}", *few]
    figures = corpus / "finetune.json"
    assert main(["finetune", "demo-violence", *options, "wandb=offline", "--json", str(figures)]) == 0
    metrics = json.loads(figures.read_text())["metrics"]
    assert set(metrics) >= {"accuracy", "auc", "average_precision", "f1"}
    told = read_history(runs / "demo-violence")
    assert told["finetune/Test clips.nrows"] == len(metrics)
    assert told["finetune/Confusion (rows: truth)._type"] == "image-file"
    assert told["label/accuracy"] <= 1

    exported = corpus / "classifier"
    assert main(["export", str(runs / "demo-violence"), str(exported)]) == 0
    assert load_bundle(exported).positive == "contact"

    video = min((corpus / "world" / "video").iterdir())
    depth = corpus / "world" / "depth" / video.name
    capsys.readouterr()
    png = corpus / "timeline.png"
    assert main(["predict", str(exported), str(video), "--with", f"depth={depth}", "--png", str(png)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    windows = [line for line in lines if line["kind"] == "window"]
    assert windows[0]["present"] == ["rgb", "flow", "depth", "audio"]
    assert all(sum(window["probabilities"].values()) == pytest.approx(1, abs=1e-4) for window in windows)
    # As short as the clips that it was trained on, it is one.
    assert [(window["start"], window["whole"]) for window in windows] == [(0, True)]
    assert (lines[-1]["kind"], lines[-1]["probabilities"]) == ("clip", windows[0]["probabilities"])
    assert png.read_bytes()[:4] == b"\x89PNG"

    page = corpus / "report.html"
    assert main(["report", str(runs / "demo-pretrain"), str(runs / "demo-violence"), "--out", str(page)]) == 0
    assert "demo-violence" in page.read_text()


@pytest.mark.slow
def test_missing_stream_is_reported_absent_with_weight_zero(
    corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = corpus / "runs"
    options = [f"data.shards={corpus / 'shards'}", f"out={runs}", "name=scratch", *few]
    assert main(["finetune", "demo-violence", *options]) == 0
    video = min((corpus / "world" / "video").iterdir())
    capsys.readouterr()
    assert main(["predict", str(runs / "scratch"), str(video)]) == 0
    window = json.loads(capsys.readouterr().out.splitlines()[0])
    assert "depth" not in window["present"]
    assert window["gates"]["depth"] == 0


@pytest.mark.slow
def test_folds_train_one_model_each_and_resume_skips_finished_ones(corpus: Path, few: list[str]) -> None:
    runs = corpus / "runs"
    options = [f"data.shards={corpus / 'shards'}", f"out={runs}", "name=folds", "data.folds=2", *few]
    assert main(["finetune", "demo-violence", *options]) == 0
    assert (runs / "folds" / "fold-0" / "encoder").is_dir()
    assert (runs / "folds" / "fold-1" / "encoder").is_dir()
    first = (runs / "folds" / "results" / "finetune.json").read_text()
    rows = json.loads(first)["tables"][0]["rows"]
    assert main(["finetune", "demo-violence", *options, "--resume"]) == 0
    again = json.loads((runs / "folds" / "results" / "finetune.json").read_text())["tables"][0]["rows"]
    assert again == rows
    assert main(["export", str(runs / "folds"), str(corpus / "first")]) == 0
    assert load_bundle(corpus / "first").provenance["run"] == "folds/fold-0"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["pack", "{corpus}/nowhere", "{corpus}/out"], 2, "nowhere"),
        (["pack", "{corpus}/empty", "{corpus}/out"], 2, "holds no media"),
        (["pack", "{corpus}/texts", "{corpus}/out"], 2, "holds no media"),
        (["pack", "{corpus}/world", "{corpus}/out", "--modalities", "rbg"], 2, "'rgb'"),
        (["pack", "{corpus}/world", "{corpus}/world"], 2, "already holds"),
        (["pack", "{corpus}/absent", "{corpus}/out"], 2, "gone.mp4"),
        (["pack", "{corpus}/broken", "{corpus}/out"], 3, "bad.mp4"),
        (["inspect", "{corpus}/world"], 2, "index.json"),
        (["verify", "{corpus}/older"], 2, "format 0"),
        (["pretrain", "demo-pretrain", "data.shards={corpus}/shards", "trian.steps=2"], 2, "train"),
        (
            ["pretrain", "demo-pretrain", "data.shards={corpus}/shards", "tasks.cross_model.weight=1"],
            2,
            "cross_modal",
        ),
        (["pretrain", "demo-pretrain", "data.shards={corpus}/shards", "data.modalities=[rgb,adio]"], 2, "'audio'"),
        (["pretrain", "demo-pretrain", "data.shards={corpus}/shards", "data.split=pretrian"], 2, "'pretrain'"),
        (["pretrain", "demo-pretrian", "data.shards={corpus}/shards"], 2, "'demo-pretrain'"),
        (["finetune", "demo-violence", "data.shards={corpus}/shards", "data.label=lable"], 2, "'label'"),
        (["finetune", "demo-violence", "data.shards={corpus}/shards", "positive=contakt"], 2, "'contact'"),
        (["probe", "{corpus}/runs/demo-pretrain", "{corpus}/shards", "--label", "lable"], 2, "'label'"),
        (["probe", "{corpus}/world", "{corpus}/shards"], 2, "encoder.json"),
        (["predict", "{corpus}/runs/demo-pretrain", "{corpus}/none.mp4"], 2, "none.mp4"),
        (["predict", "{corpus}/runs/demo-pretrain", "{corpus}/broken/bad.mp4"], 2, "without classes"),
        (["report", "{corpus}/empty"], 2, "is not a run folder"),
        (["export", "{corpus}/empty", "{corpus}/out"], 2, "no trained model"),
        (["demo", "--out", "{corpus}/world"], 2, "no demo wrote"),
    ],
)
def test_invalid_request_is_one_line_and_leaves_no_files(
    corpus: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
) -> None:
    (corpus / "empty").mkdir(exist_ok=True)
    for name, files in (("texts", ["notes.txt"]), ("absent", []), ("broken", ["bad.mp4"])):
        (corpus / name).mkdir(exist_ok=True)
        for file in files:
            (corpus / name / file).write_text("no media")
    (corpus / "absent" / "labels.csv").write_text("video,label\ngone.mp4,a\n")
    if not (corpus / "older").is_dir():
        shutil.copytree(corpus / "shards", corpus / "older")
        index = json.loads((corpus / "older" / "index.json").read_text())
        (corpus / "older" / "index.json").write_text(json.dumps(index | {"version": 0}))
    # A separate run folder, which must not exist afterwards.
    extra = [f"out={corpus / 'runs'}", "name=refused"] if arguments[0] in ("pretrain", "finetune") else []
    before = sorted(path.name for path in corpus.iterdir())
    capsys.readouterr()
    assert main([argument.replace("{corpus}", str(corpus)) for argument in arguments] + extra) == status
    error = capsys.readouterr().err.strip().splitlines()
    assert says in error[-1]
    assert "Traceback" not in "".join(error)
    if status == 3:
        # Encoded recordings are kept for the next run, with the list of unreadable ones.
        assert sorted(os.listdir(corpus / "out")) == [".packing", "rejected.jsonl"]
        shutil.rmtree(corpus / "out")
    assert sorted(path.name for path in corpus.iterdir()) == before
    assert not (corpus / "runs" / "refused").exists()
