"""The other processes name a stalled process, in real processes that wait for it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from modalgate.launch.training.heartbeat import EVALUATING, FORWARD, WAITING, Place, describe, late_ranks

# Until a rank that stands still is named. A rank that is only slow gets more time than any machine needs.
SECONDS, PATIENT_SECONDS = 4.0, 120.0


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("stream", "rank 1 has made no progress for 0.0667 minutes, after step 3, waiting for data;"),
        # Rank 1 waits for its gradients a place further on.
        ("forward", "rank 0 has made no progress for 0.0667 minutes, after step 3, in the forward pass;"),
    ],
)
def test_stalled_rank_is_named_once_and_all_ranks_exit(
    tmp_path: Path, launch: Callable[..., list[int]], how: str, expected: str
) -> None:
    script, log = str(Path(__file__).parents[1] / "given" / "sleeper.py"), tmp_path / "log"
    arguments = [how, str(tmp_path / "run"), str(SECONDS / 60)]
    assert launch(arguments, 2, script=script, log=str(log)) == [3, 3]
    lines = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert len(lines) == 1, log.read_text()
    assert expected in lines[0]


def test_slow_rank_within_the_timeout_is_waited_for(tmp_path: Path, launch: Callable[..., list[int]]) -> None:
    script, log = str(Path(__file__).parents[1] / "given" / "sleeper.py"), tmp_path / "log"
    arguments = ["slow", str(tmp_path / "run"), str(PATIENT_SECONDS / 60)]
    assert launch(arguments, 2, script=script, log=str(log)) == [0, 0], log.read_text()
    assert not re.search("no progress", log.read_text())


def test_rank_with_the_fewest_beats_is_late() -> None:
    places = {0: Place(7, 3, FORWARD), 1: Place(6, 3, WAITING), 2: Place(7, 3, FORWARD)}
    assert late_ranks(places) == [1]
    assert "rank 1 has made no progress for 10 minutes, after step 3, waiting for data" in describe(places, [1], 600)


def test_ranks_in_evaluation_do_not_time_out() -> None:
    evaluating = {rank: Place(9, 4, EVALUATING) for rank in range(2)}
    assert late_ranks(evaluating) == []
    assert late_ranks(evaluating | {1: Place(10, 4, WAITING)}) == [0]
