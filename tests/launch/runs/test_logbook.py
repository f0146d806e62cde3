"""Warnings at the end of a real training, on stored features with or without a planted class."""

import json
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.runs.logbook import Logbook
from modalgate.launch.runs.metric_log import WARNINGS, read_metrics
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.loop import train
from modalgate.tasks.finetuning.supervised_objective import SupervisedObjective, guess
from modalgate.tasks.fusion_study.feature_bank import StoredClips, StoredStream
from modalgate.tasks.report.provenance import read_warnings

CLIPS, WIDTH, NAMES = 32, 4, ("rgb", "audio")


def clips(planted: bool) -> StoredClips:
    """Two classes; where `planted`, the feature is the class, otherwise all clips have the same feature."""
    label = torch.arange(CLIPS) % 2
    rows = torch.ones(CLIPS, 1, 1, WIDTH)
    if planted:
        rows[:, 0, 0, 0] = 4.0 * label - 2
    present = torch.ones(CLIPS, 1, dtype=torch.bool)
    keys = [f"k{number}" for number in range(CLIPS)]
    streams = {name: rows.clone() for name in NAMES}
    return StoredClips(
        streams, dict.fromkeys(NAMES, present), torch.zeros(CLIPS, 1, 2, 1), present * 1.0, label, keys
    )


def trained(run: Path, stored: StoredClips, decision: str | None = None, steps: int = 60) -> list[str]:
    """The warnings that a run leaves."""
    torch.manual_seed(0)
    encoders = {name: EncoderSpec(f"stored/{WIDTH}") for name in NAMES}
    backbone = Backbone(NAMES, BackboneSpec(width=8, fusion="softmax", encoders=encoders))
    classifier = Classifier(backbone, ["calm", "fight"], unimodal=decision is not None, decision=decision)
    objective = SupervisedObjective(
        classifier, None, None, 1.0 if decision else 0.0, guessing=guess(stored.label.numpy(), 2)
    )
    config = TrainConfig(steps=steps, learning_rate=0.02, log_every=5, checkpoint_every=steps, threads=1)
    train(objective, StoredStream(stored, 16), config, run, tracker_mode="disabled", resume=run.is_dir())
    return read_warnings(run)


def test_unlearnable_label_causes_a_warning_and_separable_label_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = trained(tmp_path / "same", clips(planted=False))
    (line,) = [line for line in said if "ends near guessing" in line]
    assert "guessing 0.693" in line
    assert f"warning: {line}" in capsys.readouterr().err.splitlines()
    assert not [line for line in said if "gets no gradient" in line]
    good = trained(tmp_path / "planted", clips(planted=True))
    assert not [line for line in good if not line.startswith("note: ")]
    last = read_metrics(tmp_path / "planted")[-1]
    assert last["label/loss"] < 0.3 < last["label/guessing"] < 0.7
    assert last["label/chance"] == 0.5
    assert last["label/accuracy"] == 1


def test_with_a_decision_its_weights_are_monitored(tmp_path: Path) -> None:
    for decision, learns in (("mean", False), ("opinion", True)):
        said = trained(tmp_path / decision, clips(planted=True), decision=decision)
        assert not [line for line in said if "gets no gradient" in line]
        gradients = [line.get("fusion/gradient") for line in read_metrics(tmp_path / decision)]
        assert any(value for value in gradients if value is not None) is learns


def test_longer_training_removes_outdated_warnings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert [line for line in trained(run, clips(planted=True), steps=5) if "near guessing" in line] == []
    (run / WARNINGS).write_text(json.dumps({"step": 5, "warning": "old (1)"}) + "\n", encoding="utf-8")
    assert read_warnings(run) == ["old (1)"]
    assert "old (1)" not in trained(run, clips(planted=True), steps=60)


def test_warnings_of_folds_are_printed_once(tmp_path: Path) -> None:
    for fold in range(3):
        folder = tmp_path / f"fold-{fold}"
        folder.mkdir()
        (folder / "metrics.jsonl").touch()
        if fold:
            lines = [{"step": 1, "warning": f"the loss is high ({fold})"}] * 2
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / WARNINGS).write_text(text + '{"step": 2, "warn', encoding="utf-8")
    assert read_warnings(tmp_path) == ["the loss is high (1) (in 2 of 3 trainings, such as fold-1)"]


def test_online_probe_is_shown_with_its_chance() -> None:
    book = Logbook(None, lambda _: [], None, {})
    book.evaluated(10, {"probe/knn": 0.3125, "probe/chance": 0.25, "validation/loss": 1.5})
    shown: dict[str, object] = {}

    def advance(count: int = 1, **fields: object) -> None:
        shown.update(fields)

    book.means.add({"loss": torch.tensor(1.0)})
    book.meter.add(1)
    book.log(10, 0.1, advance)
    assert shown["probe/knn"] == "0.312 (chance 0.25)"
    assert "validation/loss" not in shown
