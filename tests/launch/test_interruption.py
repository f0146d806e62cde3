"""Signals as a wish to stop."""

import os
import signal

import pytest
from modalgate.launch.interruption import caught_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_the_second_acts(number: signal.Signals) -> None:
    acted: list[int] = []
    before = signal.signal(number, lambda received, frame: acted.append(received))
    try:
        with caught_signals() as received:
            assert received == []
            os.kill(os.getpid(), number)
            assert (received, acted) == ([number], [])
            os.kill(os.getpid(), number)
            assert (received, acted) == ([number], [number])
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)
