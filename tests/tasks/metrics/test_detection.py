"""Events in untrimmed recordings, against hand counts and loops over frames."""

import numpy as np
import pytest
from modalgate.tasks.metrics.detection import (
    ScoredVideo,
    alarm_events,
    detection_tables,
    judge_alarms,
    recall_threshold,
)
from sklearn.metrics import average_precision_score, roc_auc_score


def video(scores: list[float], *spans: tuple[float, float], name: str = "a.mp4") -> ScoredVideo:
    """Windows of 2 s, one per second."""
    starts = np.arange(len(scores), dtype=float)
    return ScoredVideo(name, starts, starts + 2, np.array(scores), spans)


def test_successive_windows_are_one_alarm() -> None:
    held = video([0.1, 0.9, 0.8, 0.2, 0.1, 0.9])
    assert alarm_events(held, 0.5) == [(1.0, 4.0), (5.0, 7.0)]
    assert alarm_events(held, 0.85) == [(1.0, 3.0), (5.0, 7.0)]
    assert alarm_events(held, 0.95) == []


def test_alarms_by_hand() -> None:
    # The window of 2 to 4 s detects span 1. Span 2 is missed. Each video has one false alarm.
    first = video([0.1, 0.2, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.8, 0.1, 0.1], (3.0, 5.0), (6.5, 7.0))
    calm = video([0.1, 0.7, 0.1, 0.1], name="b.mp4")
    judged = judge_alarms([first, calm], 0.5)
    assert (judged.spans, judged.found, judged.alarms, judged.false) == (2, 1, 3, 2)
    assert judged.delay == pytest.approx(1.0)
    assert first.seconds == 12
    assert first.calm_seconds == pytest.approx(9.5)
    assert judged.per_hour == pytest.approx(2 / ((9.5 + 5) / 3600))


def test_overlapping_spans_count_once() -> None:
    assert video([0.1] * 9, (1.0, 4.0), (3.0, 5.0), (9.0, 99.0)).calm_seconds == pytest.approx(10 - 4 - 1)


def test_recall_threshold_is_the_highest_that_finds_enough_spans() -> None:
    generator = np.random.default_rng(0)
    spans = [(float(n), float(n) + 1.5) for n in range(0, 50, 5)]
    held = [video(generator.random(60).tolist(), *spans)]
    threshold = recall_threshold(held, 0.9)
    assert judge_alarms(held, threshold).found == 9
    assert judge_alarms(held, threshold + 1e-9).found == 8
    with pytest.raises(ValueError, match="no span"):
        recall_threshold([video([0.1, 0.2])])
    with pytest.raises(ValueError, match="recall"):
        recall_threshold(held, 0.0)


def test_frame_metrics_equal_a_loop_over_frames() -> None:
    generator = np.random.default_rng(1)
    held = [video(generator.random(20).tolist(), (3.0, 8.0), name="a"), video(generator.random(9).tolist(), name="b")]
    frames, _ = detection_tables(held, 10.0, 0.5)
    scores, truth = [], []
    for one in held:
        for number in range(round(one.seconds * 10)):
            time = number / 10
            over = [s for a, b, s in zip(one.starts, one.ends, one.scores, strict=True) if a <= time < b]
            scores.append(np.mean(over))
            truth.append(any(a <= time < b for a, b in one.spans))
    rows = {row[0]: row for row in frames.rows}
    assert rows["all, pooled"][3] == pytest.approx(average_precision_score(truth, scores))
    assert rows["all, pooled"][5] == pytest.approx(roc_auc_score(truth, scores))
    alone = average_precision_score(truth[:210], scores[:210])
    assert rows["a"][3] == pytest.approx(alone)
    assert (rows["all, pooled"][4], rows["all, pooled"][6]) == (pytest.approx(np.mean(truth)), 0.5)
    assert rows["b"][3] is None  # without spans, average precision is undefined


def test_perfect_scores_give_no_false_alarm() -> None:
    held = [video([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0], (2.0, 5.0))]
    frames, alarms = detection_tables(held, 5.0, 0.5)
    assert frames.rows[-1][5] == pytest.approx(1.0, abs=0.05)
    for row in alarms.rows:
        assert row[2:5] == [1.0, 1, 0]
        assert row[5] == 0
