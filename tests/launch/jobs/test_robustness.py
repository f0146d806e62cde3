"""`modalgate robustness` on runs with folds, bundles and probed encoders, and its errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.tasks.evaluation.scores import load_scores
from modalgate.tasks.records import LevelCurves, load_result
from modalgate.tasks.robustness.conditions import Condition, load_sweep

# The largest split for testing: sixteen clips of both classes.
PAIR = ["data.modalities=[rgb,audio]", "data.segments=1", "data.split=train+val", "data.test_split=pretrain"]


def trained(corpus: Path, few: list[str], name: str, *more: str) -> Path:
    """A run of two steps on picture and sound."""
    run = corpus / "runs" / name
    if not run.exists():
        places = [f"data.shards={corpus / 'shards'}", f"out={corpus / 'runs'}", f"name={name}"]
        assert main(["finetune", "demo-violence", *places, *few, *PAIR, *more]) == 0
    return run


def measure(model: Path, corpus: Path, *more: str) -> int:
    return main(["robustness", str(model), str(corpus / "shards"), "--workers", "0", *more])


@pytest.mark.slow
def test_run_is_measured_saved_reported_and_compared(
    corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, figures = trained(corpus, few, "sturdy"), corpus / "robust.json"
    axes = ["--axis", "snr", "--axis", "swap", "--axis", "noise"]
    assert measure(run, corpus, *axes, "--json", str(figures)) == 0
    out = capsys.readouterr().out
    assert "Missing modalities" in out
    assert "All modalities corrupted" in out
    assert f"modalgate report {run}" in out
    content = json.loads(figures.read_text())
    assert [row["present"] for row in content["missing"]] == [["rgb"], ["audio"], ["rgb", "audio"]]
    found = {(curve["axis"], curve["modality"]): curve for curve in content["curves"]}
    assert set(found) == {("noise", "rgb"), ("swap", "rgb"), ("snr", "audio"), ("swap", "audio"), ("noise", "all")}
    for curve in content["curves"]:
        assert 0 <= curve["area_low"] <= curve["area"] <= curve["area_high"] <= 1
        assert curve["clean"] == curve["accuracy"][curve["levels"].index("inf" if curve["axis"] == "snr" else 0.0)]
    # Where nothing is missing or corrupted it says what fine-tuning said.
    sweep, units = load_sweep(run / "results" / "robustness.safetensors")
    scores, test_units, _ = load_scores(run / "results" / "scores.safetensors")
    whole = sweep.probabilities[sweep.conditions.index(Condition("missing", "rgb+audio"))]
    assert sweep.keys == scores.keys
    assert units == test_units
    np.testing.assert_allclose(whole, scores.probabilities, atol=1e-5)
    result = load_result(run / "results" / "robustness.json")
    assert sum(isinstance(figure, LevelCurves) for figure in result.figures) == 5
    # Augmentation without noise, and no dropped modalities.
    assert {row[result.tables[1].columns.index("in training")] for row in result.tables[1].rows} == {"no"}
    # Another run on the same corrupted clips.
    other = trained(corpus, few, "frail", "model.fusion=static", "model.fusion_arguments=null", "seed=1")
    assert main(["compare", str(run), str(other)]) == 0
    assert f"modalgate robustness {other} SHARDS" in capsys.readouterr().out
    assert measure(other, corpus, *axes) == 0
    page = corpus / "compared.html"
    assert main(["compare", str(run), str(other), "--out", str(page)]) == 0
    assert "Robustness, second less first" in capsys.readouterr().out
    assert page.read_text().count("area under accuracy over the levels") == 1


@pytest.mark.slow
def test_folds_are_scored_by_their_own_classifier_and_a_bundle_by_a_split(
    corpus: Path, few: list[str], tmp_path: Path
) -> None:
    run = trained(corpus, few, "crossed", "data.folds=2", "data.split=null")
    assert measure(run, corpus, "--axis", "snr") == 0
    sweep, _ = load_sweep(run / "results" / "robustness.safetensors")
    scores, _, _ = load_scores(run / "results" / "scores.safetensors")
    assert sweep.keys == scores.keys
    assert len(sweep.keys) == 32
    whole = sweep.probabilities[sweep.conditions.index(Condition("missing", "rgb+audio"))]
    np.testing.assert_allclose(whole, scores.probabilities, atol=1e-5)
    # One fold's folder stands for that fold's clips; a bundle is scored on a split, or on all.
    counts = {}
    for name, more in (("fold", []), ("split", ["--split", "train"]), ("all", ["--split", "all"])):
        model = run / "fold-1" if name == "fold" else run / "fold-1" / "encoder"
        assert measure(model, corpus, "--axis", "snr", *more, "--json", str(tmp_path / "f.json")) == 0
        counts[name] = json.loads((tmp_path / "f.json").read_text())["missing"][-1]["clips"]
    assert counts["fold"] == 16
    assert counts["all"] == 32
    assert 0 < counts["split"] < 16
    assert not (run / "fold-1" / "encoder" / "results").exists()


@pytest.mark.slow
def test_an_encoder_is_measured_by_a_probe_on_its_clean_features(corpus: Path, tmp_path: Path) -> None:
    run, figures = corpus / "runs" / "demo-pretrain", tmp_path / "probed.json"
    options = ["--folds", "2", "--views", "1", "--axis", "holes", "--axis", "freeze", "--json", str(figures)]
    assert measure(run, corpus, *options) == 0
    content = json.loads(figures.read_text())
    assert len(content["missing"]) == 2**4 - 1
    assert {curve["modality"] for curve in content["curves"]} == {"rgb", "flow", "depth"}
    assert content["missing"][-1]["clips"] == 32
    assert "linear probe" in load_result(run / "results" / "robustness.json").tables[0].note


@pytest.mark.parametrize(
    ("model", "more", "says"),
    [
        ("demo-pretrain", ["--axis", "blurr"], "blur"),
        ("sturdy/encoder", ["--split", "absent"], "absent"),
        ("sturdy/encoder", ["--label", "group"], "not a class of this model"),
        ("nowhere", [], "nowhere"),
    ],
)
def test_unmeasurable_request_is_rejected_in_one_line(
    model: str, more: list[str], says: str, corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(corpus, few, "sturdy")
    capsys.readouterr()
    assert measure(corpus / "runs" / model, corpus, *more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
