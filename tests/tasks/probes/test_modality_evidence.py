"""Evidence of modalities on planted features."""

import numpy as np
import pytest
from modalgate.tasks.features.extract import Features
from modalgate.tasks.probes.modality_evidence import modality_evidence, votes_of

CLIPS, CLASSES = 120, 3


def planted(told: float = 4.0, present: float = 1.0) -> tuple[Features, np.ndarray]:
    """`sure` is the class plus noise, `blind` is noise. A share `present` of the clips has `blind`."""
    rng = np.random.default_rng(0)
    labels = np.arange(CLIPS) % CLASSES
    sure = rng.normal(size=(CLIPS, 8)).astype(np.float32)
    sure[np.arange(CLIPS), labels] += told
    blind = rng.normal(size=(CLIPS, 8)).astype(np.float32)
    there = {"sure": np.ones(CLIPS, bool), "blind": rng.permutation(CLIPS) < present * CLIPS}
    keys = [str(number) for number in range(CLIPS)]
    features = Features.joined(
        ("sure", "blind"),
        {"fused": sure, "sure": sure, "blind": blind},
        there,
        np.zeros((CLIPS, 2), np.float32),
        keys,
    )
    return features, labels


def test_a_predictive_modality_scores_above_chance() -> None:
    evidence = modality_evidence(*planted(), CLASSES, None)
    assert evidence["sure"] > 0.98
    # With 120 clips in three folds, the AUC at chance has a deviation of about .05.
    assert abs(evidence["blind"] - 0.5) < 0.15
    votes = votes_of(evidence)
    assert votes["sure"] > 0.96
    assert votes["blind"] < 0.3


def test_only_clips_with_the_modality_count() -> None:
    features, labels = planted(present=0.5)
    features.values["blind"][~features.present["blind"]] = labels[~features.present["blind"]][:, None] * 100.0
    assert abs(modality_evidence(features, labels, CLASSES, None)["blind"] - 0.5) < 0.2


def test_a_group_is_never_in_both_parts() -> None:
    """Features identify the group, and a group has one class: only a leak could predict the label."""
    groups = np.repeat(np.arange(CLIPS // 4), 4)
    labels = np.random.default_rng(1).integers(0, CLASSES, CLIPS // 4)[groups]
    names = np.eye(CLIPS // 4, dtype=np.float32)[groups]
    features, _ = planted()
    features.values["sure"] = names
    leaked = modality_evidence(features, labels, CLASSES, None)["sure"]
    kept = modality_evidence(features, labels, CLASSES, [str(group) for group in groups])["sure"]
    assert leaked > 0.95
    assert abs(kept - 0.5) < 0.2


@pytest.mark.parametrize("clips", [0, 1])
def test_a_rare_modality_gets_chance(clips: int) -> None:
    features, labels = planted()
    features.present["blind"] = np.arange(CLIPS) < clips
    assert modality_evidence(features, labels, CLASSES, None)["blind"] == 0.5


def test_votes() -> None:
    assert votes_of({"rgb": 0.75, "audio": 0.4}) == {"rgb": 0.5, "audio": 0.0}
    assert votes_of({"rgb": 0.5, "audio": 0.4}) == {"rgb": 1.0, "audio": 1.0}
