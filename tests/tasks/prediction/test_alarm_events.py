"""Alarms of planted scores: start, end, minimum durations and smoothing."""

import math

import pytest
from modalgate.shards.errors import RequestError
from modalgate.tasks.prediction.alarm_events import Alarm, AlarmRule, AlarmWatch


def watch(rule: AlarmRule, scores: list[float]) -> list[Alarm]:
    """Alarms of successive windows of one second."""
    watcher = AlarmWatch(rule)
    told = [alarm for second, score in enumerate(scores) for alarm in watcher.update(second, second + 1, score)]
    return told + watcher.interrupt()


def test_an_alarm_is_returned_when_raised_and_when_ended() -> None:
    told = watch(AlarmRule(0.6, 0.4), [0.1, 0.7, 0.5, 0.9, 0.45, 0.3, 0.5, 0.1])
    assert told == [Alarm(1, None, 0.7, 1.5), Alarm(1, 5, 0.9, 3.5)]


def test_between_the_thresholds_nothing_changes() -> None:
    assert watch(AlarmRule(0.6, 0.4), [0.5] * 9) == []
    began, ended = watch(AlarmRule(0.6, 0.4), [0.6] + [0.4] * 9)
    assert (began.off, ended.on, ended.off) == (None, 0, 10)


def test_a_short_rise_raises_no_alarm_and_a_short_fall_ends_none() -> None:
    rule = AlarmRule(0.6, 0.4, min_on=3, min_off=2)
    assert watch(rule, [0.9, 0.9, 0.1, 0.9, 0.9, 0.1]) == []
    began, ended = watch(rule, [0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9])
    assert (began.on, began.off) == (0, None)
    assert (ended.on, ended.off) == (0, 5)


def test_the_mean_covers_the_last_seconds() -> None:
    # Means of the last two: 0, 0.5, 1, 0.5, 0.
    began, ended = watch(AlarmRule(0.9, 0.2, smooth=2), [0, 1, 1, 0, 0])
    assert (began.on, ended.off, ended.peak) == (2, 4, 1)
    assert watch(AlarmRule(0.9, 0.2, smooth=2), [0, 1, 0, 1, 0]) == []


def test_the_exponential_mean_has_its_time_constant() -> None:
    level = 1 - math.exp(-3 / 4)
    rule = AlarmRule(level - 1e-6, 0, smooth=4, smoothing="exponential")
    began, _ = watch(rule, [0, 1, 1, 1])
    assert began.on == 3
    assert began.peak == pytest.approx(level)


def test_alarms_do_not_overlap_where_windows_do() -> None:
    """Windows of 1 s, one every 0.25 s: without the rule, the second alarm would start before the first ended."""
    watcher = AlarmWatch(AlarmRule(0.6, 0.4))
    scores = [0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1]
    told = [alarm for n, score in enumerate(scores) for alarm in watcher.update(n / 4, n / 4 + 1, score)]
    spans = [(alarm.on, alarm.off) for alarm in told if alarm.off is not None]
    assert spans == [(0, 1.25), (1.25, 2)]
    assert all(alarm.on <= alarm.peak_at for alarm in told)


def test_a_gap_ends_an_alarm_and_clears_the_mean() -> None:
    watcher = AlarmWatch(AlarmRule(0.6, 0.4, smooth=10))
    assert watcher.update(0, 1, 0.9)
    assert watcher.interrupt() == [Alarm(0, 1, 0.9, 0.5)]
    assert watcher.interrupt() == []
    assert watcher.update(5, 6, 0.5) == []
    assert watcher.update(6, 7, 0.9)[0].peak == pytest.approx(0.7)


def test_invalid_thresholds_and_durations_raise() -> None:
    for wrong in ({"on": 0.4, "off": 0.5}, {"on": 1.1}, {"off": -0.1}, {"min_on": -1.0}, {"smooth": math.nan}):
        with pytest.raises(RequestError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
            AlarmRule(**wrong)  # pyright: ignore[reportArgumentType]
