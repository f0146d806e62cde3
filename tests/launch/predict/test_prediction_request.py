"""Class and thresholds of alarms, given and by default; and outputs that exist."""

from dataclasses import replace
from pathlib import Path

import pytest
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.predict.prediction_request import AlarmRequest, PredictRequest
from modalgate.shards.errors import RequestError
from modalgate.tasks.prediction.alarm_events import AlarmRule
from modalgate.tasks.prediction.window_scores import Scorer, scorer_of


@pytest.fixture
def violent(trained_run: Path) -> Scorer:
    return scorer_of(load_bundle(trained_run / "encoder"))


@pytest.fixture
def peaceful(trained_run: Path) -> Scorer:
    """The same without a violent class."""
    return scorer_of(replace(load_bundle(trained_run / "encoder"), positive=None))


def test_violence_alarm_uses_the_chosen_threshold(violent: Scorer) -> None:
    assert AlarmRequest().rule(violent, 0.6) == ("fight", AlarmRule(0.6, 0.8 * 0.6, smooth=2))
    assert AlarmRequest().rule(violent, None) == ("fight", AlarmRule(0.5, 0.4, smooth=2))


def test_given_alarm_overrides_the_default(violent: Scorer) -> None:
    assert AlarmRequest("calm", 0.9, 0.1, 3, "exponential", 4, 5).rule(violent, 0.6) == (
        "calm",
        AlarmRule(0.9, 0.1, 3, "exponential", 4, 5),
    )


def test_no_alarm_without_a_class(peaceful: Scorer) -> None:
    assert AlarmRequest().rule(peaceful, 0.6) is None
    for thresholds in ({"on": 0.5}, {"off": 0.5}):
        with pytest.raises(RequestError, match="with --alarm"):
            AlarmRequest(**thresholds).rule(peaceful, 0.6)
    assert AlarmRequest("calm").rule(peaceful, None) == ("calm", AlarmRule(0.5, 0.4, smooth=2))


def test_earlier_lines_are_replaced_only_on_request(tmp_path: Path) -> None:
    request = PredictRequest(out=tmp_path / "hall.jsonl")
    assert request.check_free() == []
    (tmp_path / "hall.jsonl").touch()  # as mktemp makes it
    assert request.check_free() == []
    (tmp_path / "hall.jsonl").write_bytes(b"earlier")
    with pytest.raises(RequestError, match="already exists: give another --out, or add --overwrite"):
        request.check_free()
    assert replace(request, overwrite=True).check_free() == []
    assert PredictRequest(out=Path("/dev/null")).check_free() == []


def test_replaced_pictures_are_named_and_films_are_kept(tmp_path: Path) -> None:
    drawn, film = tmp_path / "hall.png", tmp_path / "hall.mp4"
    drawn.write_bytes(b"\x89PNG earlier")
    film.write_bytes(b"earlier")
    assert PredictRequest(png=drawn).check_free() == [drawn]
    assert PredictRequest(png=tmp_path).check_free(["market", "hall"]) == [drawn]
    assert PredictRequest(png=tmp_path / "other.png").check_free() == []
    for request, keys in ((PredictRequest(video=film), None), (PredictRequest(video=tmp_path), ["market", "hall"])):
        with pytest.raises(RequestError, match=r"hall.mp4' already exists: give another --video, or add --overwrite"):
            request.check_free(keys)
        assert replace(request, overwrite=True).check_free(keys) == []
    with pytest.raises(
        RequestError, match=r"hall.mp4' already exists and is not a picture in PNG: give another --png"
    ):
        PredictRequest(png=film).check_free()
