"""The other processes name a stalled process, in real processes that wait for it."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from modalgate.launch.training.checkpoint import load_checkpoint
from modalgate.launch.training.heartbeat import EVALUATING, FORWARD, WAITING, Place, describe, late_ranks

# Until a rank that stands still is named. A rank that is only slow gets more time than any machine needs.
SECONDS, PATIENT_SECONDS = 4.0, 120.0


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        pytest.param(
            "stream",
            "rank 1 has made no progress for 0.0667 minutes, after step 3, waiting for data;",
            marks=pytest.mark.slow,
        ),
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


@pytest.mark.slow
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


FAILER = str(Path(__file__).parents[1] / "given" / "failer.py")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, launch: Callable[..., list[int]]) -> Path:
    """An uninterrupted run of `failer`."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert launch(["never", "0", str(run)], 2, script=FAILER) == [0, 0]
    return run


@pytest.mark.parametrize(
    ("how", "rank", "step", "expected"),
    [
        ("forward", 1, 5, "rank 1 failed after step 5, in the forward pass: ValueError: planted in the forward pass"),
        ("forward", 0, 5, "rank 0 failed after step 5, in the forward pass: ValueError: planted in the forward pass"),
        ("backward", 1, 5, "rank 1 failed after step 5, in the backward pass: RuntimeError: planted in the backward"),
        pytest.param(
            "backward",
            0,
            5,
            "rank 0 failed after step 5, in the backward pass: RuntimeError: planted in the backward",
            marks=pytest.mark.slow,
        ),
        ("memory", 1, 5, "rank 1 failed after step 5, in the forward pass: OutOfMemoryError: planted: out of memory"),
        ("move", 1, 5, "rank 1 failed after step 5, in the forward pass: ValueError: planted: this batch is broken"),
        ("evaluating", 1, 6, "rank 1 failed after step 6, evaluating: ValueError: planted in the evaluation"),
        pytest.param("killed", 1, 5, "rank 1 failed after step 5, ", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_ends_all_with_a_checkpoint_of_the_last_whole_step(
    tmp_path: Path, launch: Callable[..., list[int]], whole: Path, how: str, rank: int, step: int, expected: str
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    began = time.monotonic()
    statuses = launch([how, str(rank), str(run)], 2, script=FAILER, log=str(log))
    assert time.monotonic() - began < 10
    assert statuses == [3, -9 if how == "killed" else 3], log.read_text()
    lines = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert sum(expected in line for line in lines) == 1, log.read_text()
    assert sum("planted" in line for line in lines) == (how != "killed"), log.read_text()
    assert f"a checkpoint of step {step} is saved" in "".join(lines)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{step}"]
    # The unfinished step left no trace: the resumed run ends as one that never failed.
    assert launch(["never", "0", str(run), "resume"], 2, script=FAILER, log=str(log)) == [0, 0], log.read_text()
    (_, one, kept), (_, two, same) = (load_checkpoint(folder / "checkpoints" / "step-8") for folder in (whole, run))
    if how != "killed":  # the generators of a killed process are unknown
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert all(torch.equal(kept["average"][name], same["average"][name]) for name in kept["average"])


@pytest.mark.slow
def test_a_failed_process_that_lives_on_does_not_hold_the_others(
    tmp_path: Path, launch: Callable[..., list[int]]
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert launch(["lingers", "1", str(run)], 2, script=FAILER, log=str(log)) == [3, 3], log.read_text()
    lines = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    told = "error: rank 1 failed after step 5, in the forward pass: ValueError: planted in the forward pass"
    assert sorted(lines) == [told, f"{told}; a checkpoint of step 5 is saved: resume with --resume"]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-5"]
