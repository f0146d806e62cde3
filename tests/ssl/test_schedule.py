"""The weight of a task over a run."""

import pytest
from modalgate.ssl.schedule import Schedule


def test_schedule_begins_rises_and_ends() -> None:
    for progress, share in ((0.0, 0.0), (0.19, 0.0), (0.25, 0.5), (0.3, 1.0), (0.8, 1.0), (0.81, 0.0)):
        assert Schedule(begin=0.2, end=0.8, ramp=0.1).share(progress) == pytest.approx(share)


def test_default_schedule_is_constant() -> None:
    assert [Schedule().share(progress) for progress in (0.0, 0.5, 1.0)] == [1, 1, 1]
