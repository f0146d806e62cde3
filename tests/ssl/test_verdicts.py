"""Warnings of a training, from planted faulty and healthy means."""

import numpy as np
import pytest
from modalgate.ssl.verdicts import (
    FINE_TUNING,
    PRETRAINING,
    Means,
    collapse_warnings,
    gate_warnings,
    guessing_warnings,
    segment_warnings,
    task_warnings,
)

HEALTHY = {"gate/rgb": 0.5, "gate/audio": 0.5, "gate/entropy": 1.0, "embedding/std": 0.25}
SICK = {"gate/rgb": 0.999, "gate/audio": 0.001, "gate/entropy": 0.01, "embedding/std": 0.001}


def test_a_collapsed_gate_and_embedding_are_named_with_a_remedy() -> None:
    assert collapse_warnings(HEALTHY, 16, PRETRAINING) == []
    gate, embedding = collapse_warnings(SICK, 16, PRETRAINING)
    assert "collapsed onto rgb (mean weight 1.00)" in gate
    assert "model.modality_dropout" in gate
    assert "cross_modal" in embedding


def test_one_dominant_modality_is_not_a_collapse() -> None:
    assert collapse_warnings({"gate/rgb": 1.0, "gate/loss": 0.0, "embedding/std": 0.25}, 16, PRETRAINING) == []
    uneven = {"gate/rgb": 0.97, "gate/audio": 0.03, "gate/entropy": 0.3}
    assert collapse_warnings(uneven, 16, PRETRAINING) == []


def test_remedies_name_keys_of_their_training() -> None:
    from modalgate.launch.config.load import load_config
    from modalgate.shards.errors import RequestError

    words = {
        "pretrain": ("demo-pretrain", ["data.shards=x"], PRETRAINING),
        "finetune": ("demo-violence", ["data.shards=x", "encoder=y"], FINE_TUNING),
    }
    values = {"unimodal_weight": "1", "aids.gate_warmup": "0.1", "decision": "mean", "model.modality_dropout": "0.1"}
    values |= {"train.learning_rate": "0.1", "encoder_learning_rate": "0.1"}
    for kind, (name, given, remedies) in words.items():
        text = " ".join(vars(remedies).values())
        named = [key for key in values if key in text]
        assert len(named) >= 2
        for key in named:
            load_config(kind, name, [*given, f"{key}={values[key]}"])
        for key in set(values) - set(named):
            if key.partition(".")[0] in ("aids", "unimodal_weight", "decision", "encoder_learning_rate"):
                with pytest.raises(RequestError):
                    load_config("pretrain", "demo-pretrain", ["data.shards=x", f"{key}={values[key]}"])
    for line in collapse_warnings(SICK, 16, FINE_TUNING):
        assert "model." not in line
        assert "cross_modal" not in line
    for line in collapse_warnings(SICK, 16, PRETRAINING):
        assert "unimodal_weight" not in line
        assert "aids" not in line


def logged(accuracy: float, chance: float, count: int = 24, deviation: float = 0.05) -> list[Means]:
    """Lines whose second half has exactly that accuracy on average."""
    waves = deviation * np.array([1, -1] * (count // 2))
    return [{"clip_order/accuracy": accuracy + wave, "clip_order/chance": chance} for wave in waves]


def test_a_task_at_chance_is_named_with_its_key() -> None:
    (line,) = task_warnings(logged(1 / 6, 1 / 6))
    assert "task clip_order ends at chance (accuracy 0.167, chance 0.167)" in line
    assert "tasks.clip_order=null" in line
    assert task_warnings(logged(1 / 6, 1 / 6), over=["clip_order"]) == [], "its schedule ended before"
    assert task_warnings(logged(1 / 6, 1 / 6)[:2]) == [], "two lines are too few for an interval"
    # Below chance nothing was learned either; well above it was.
    assert task_warnings(logged(0.1, 1 / 6))
    assert not task_warnings(logged(0.6, 1 / 6))
    assert not task_warnings([*logged(1 / 6, 1 / 6), *logged(0.6, 1 / 6)])
    # The interval counts: of few noisy lines it is wide.
    assert not task_warnings(logged(0.2, 1 / 6, 40, deviation=0.01))
    assert task_warnings(logged(0.2, 1 / 6, 8, deviation=0.2))


def test_lines_without_the_figure_are_skipped() -> None:
    lines: list[Means] = [*logged(0.6, 1 / 6), {"clip_order/accuracy": None, "clip_order/chance": 0.2}]
    assert task_warnings(lines) == []
    assert task_warnings([]) == []
    assert task_warnings([{"probe/accuracy": 0.1}] * 5) == []


def test_training_loss_near_guessing_causes_a_warning() -> None:
    """1.71 of 1.79 is what the shipped configs once ended with."""
    for loss, warned in ((1.79, True), (1.71, True), (2.5, True), (1.2, False), (0.1, False)):
        lines: list[Means] = [{"label/loss": 1.79, "label/guessing": 1.79}] * 10
        lines += [{"label/loss": loss, "label/guessing": 1.79}] * 5
        found = guessing_warnings(lines)
        assert bool(found) == warned
        if warned:
            assert f"label/loss {loss:.3f}, guessing 1.790" in found[0]
            assert "train.steps" in found[0]
        assert guessing_warnings([{"label/loss": 5.0}]) == []


def test_gate_without_gradient_causes_a_warning_and_constant_gate_a_note() -> None:
    unread: list[Means] = [{"fusion/gradient": 0.0, "fusion/spread": 0.0}, {"fusion/spread": 0.0}] * 4
    (line,) = gate_warnings(unread, PRETRAINING)
    assert "the gate gets no gradient" in line
    assert "tasks.clip_order.arguments.streams" in line
    (line,) = gate_warnings(unread, FINE_TUNING)
    assert "decision" in line
    # Held for a while, as aids.gate_warmup does, and then trained.
    held: list[Means] = [
        {"fusion/gradient": 0.0, "fusion/spread": 0.0},
        {"fusion/gradient": 0.3, "fusion/spread": 0.2},
    ]
    assert gate_warnings(held * 5, FINE_TUNING) == []
    (line,) = gate_warnings([{"fusion/gradient": 0.1, "fusion/spread": 0.004}] * 6, PRETRAINING)
    assert line.startswith("note: ")
    assert "0.004" in line
    # A fusion that learns no gate logs no gradient: equal weights are its nature.
    assert gate_warnings([{"fusion/spread": 0.0}] * 6, PRETRAINING) == []


def test_similar_segments_cause_a_warning_for_order_tasks() -> None:
    (line,) = segment_warnings({"clip_order/segment_difference": 0.01, "frame_order/segment_difference": 0.3})
    assert "task clip_order (0.010 of the difference between clips; below 0.05 is too little)" in line
    assert "tasks.clip_order=null" in line
