"""A recording as one clip: mean and highest scores, and its class."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from modalgate.shards.clips.application import Application
from modalgate.tasks.metrics.calibration import apply_temperature
from modalgate.tasks.prediction.overall import Overall, decide
from modalgate.tasks.prediction.window_scores import Prediction


@dataclass
class Held:
    """A scorer with given classes."""

    classes: tuple[str, ...] = ("calm", "fight")
    positive: str | None = "fight"
    multilabel: bool = False
    modalities: tuple[str, ...] = ("rgb", "audio")
    application: Application = field(default_factory=Application)


def piece(start: float, fight: float, whole: bool = False) -> Prediction:
    return Prediction(start, start + 2, {"calm": 1 - fight, "fight": fight}, {"rgb": fight, "audio": 0.5}, [], whole)


def test_means_and_peaks_of_many_pieces_without_a_class() -> None:
    overall = Overall(Held())  # pyright: ignore[reportArgumentType]
    for number, score in enumerate((0.1, 0.9, 0.2)):
        overall.add(piece(float(number), score))
    facts = overall.facts()
    assert facts["probabilities"] == pytest.approx({"calm": 0.6, "fight": 0.4})
    assert facts["peaks"] == pytest.approx({"calm": 0.9, "fight": 0.9})
    assert facts["gates"] == pytest.approx({"rgb": 0.4, "audio": 0.5})
    assert (facts["pieces"], facts["end"], facts["whole"]) == (3, 4, False)
    assert "class" not in facts
    assert "calibrated" not in facts


def test_one_piece_has_a_class_and_a_calibrated_score() -> None:
    held = Held(application=Application(temperature=2.0, threshold=0.4))
    overall = Overall(held)  # pyright: ignore[reportArgumentType]
    overall.add(piece(0, 0.45, whole=True))
    facts = overall.facts()
    assert (facts["whole"], facts["class"]) == (True, "fight")
    scaled = apply_temperature(np.array([[0.55, 0.45]]), 2.0)[0]
    assert list(facts["calibrated"].values()) == pytest.approx(scaled.tolist())
    # The temperature does not change the evaluated score.
    assert facts["probabilities"]["fight"] == pytest.approx(0.45)


def test_the_class_follows_the_task() -> None:
    for held, scores, expected in (
        (Held(), (0.49, 0.51), "fight"),
        (Held(), (0.5, 0.5), "fight"),
        (Held(application=Application(threshold=0.7)), (0.4, 0.6), "calm"),
        (Held(positive=None), (0.4, 0.6), "fight"),
        (Held(multilabel=True, positive=None), (0.6, 0.7), "calm|fight"),
        (Held(multilabel=True, positive=None), (0.1, 0.2), "|"),
    ):
        assert decide(held, dict(zip(held.classes, scores, strict=True))) == expected  # pyright: ignore
