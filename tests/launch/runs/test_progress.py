"""Progress on a terminal and elsewhere, with a simulated clock."""

import io
import re

import pytest
from modalgate.launch.runs.progress import Pace, counted, track


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_first_every_thirty_seconds_and_last() -> None:
    stream, clock = io.StringIO(), Clock()
    with track(100, "pack", stream=stream, clock=clock) as advance:
        for _ in range(100):
            clock.now += 1
            advance(1, loss=0.12345, wait="3%")
    assert stream.getvalue().splitlines() == [
        "pack 1/100 | loss 0.123 | wait 3%",
        "pack 31/100 | 1/s | 1:09 left | loss 0.123 | wait 3%",
        "pack 61/100 | 1/s | 0:39 left | loss 0.123 | wait 3%",
        "pack 91/100 | 1/s | 0:09 left | loss 0.123 | wait 3%",
        "pack 100/100 | 1/s | in 1:40 | loss 0.123 | wait 3%",
    ]


def test_work_done_before_a_resume_does_not_count_as_speed() -> None:
    stream, clock = io.StringIO(), Clock()
    with track(4000, "run", start=3990, stream=stream, clock=clock) as advance:
        clock.now += 400
        advance(1)
        clock.now += 3600
        advance(9)
    assert stream.getvalue().splitlines() == [
        "run 3991/4000",
        "run 4000/4000 | 0.0025/s | in 1:06:40",
    ]


def test_a_slow_start_does_not_count_in_the_time_left() -> None:
    """Twenty seconds for the first step and one for each other step, as when processes start and caches fill."""
    stream, clock = io.StringIO(), Clock()
    left = []
    with track(400, "run", stream=stream, clock=clock) as advance:
        for step in range(400):
            clock.now += 20 if step == 0 else 1
            advance(1)
            advance(0, loss=0.5)
            found = re.findall(r"(\d+)/400 .*?(\d+):(\d\d) left", stream.getvalue())
            left = [(400 - int(done), 60 * int(minutes) + int(seconds)) for done, minutes, seconds in found]
    assert stream.getvalue().startswith("run 1/400\n"), "one step is not enough for a rate"
    assert len(left) >= 10
    assert all(seconds == steps for steps, seconds in left)


def test_the_time_left_follows_the_newest_steps() -> None:
    clock = Clock()
    pace = Pace(clock)
    known = []
    for step in range(1, 201):
        clock.now += 10 if step <= 100 else 2
        pace.add(step)
        known.append(pace.rate())
    assert known[:3] == [None, None, None]
    assert known[3] == known[99] == 0.1
    assert known[-1] == 0.5
    assert pace.left(60) == "2:00 left"


def test_terminal_shows_a_bar_with_all_fields_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream, losses = Terminal(), {f"task_{number}": 1.5 + number for number in range(8)}
    with track(5, "train", stream=stream) as advance:
        advance(5, **losses, memory="0.9 GB")
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).split("\r")[-1]
    bar, *facts = last.split("\n")
    assert bar.startswith("train ")
    assert "5/5" in bar
    words = " ".join(facts).split()
    assert words[:2] == ["task_0", "1.5"]
    assert words[-5:] == ["task_7", "8.5", "memory", "0.9", "GB"]
    assert max(map(len, (bar, *facts))) <= 80


def test_only_the_first_process_shows_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with track(5, "train", show=False) as advance:
        advance(5, loss=1.5)
    assert capsys.readouterr() == ("", "")


def test_counted_takes_its_total_and_start_from_the_first_report(capsys: pytest.CaptureFixture[str]) -> None:
    with counted("world") as report:
        report(2, 6)
        report(6, 6, 1)
    lines = capsys.readouterr().err.splitlines()
    # Work done before does not count in the rate.
    assert lines[0] == "world 2/6"
    assert lines[-1].startswith("world 6/6 | ")
    assert lines[-1].endswith("| rejected 1")
    assert len(lines) == 2


def test_an_error_passes_through_without_a_closing_line() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), track(5, "train", stream=stream):
        raise ValueError("broken")
    assert stream.getvalue() == ""
