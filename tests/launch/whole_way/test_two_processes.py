"""Two gloo processes at half the batch have the loss curve of one process, and do not block."""

from collections.abc import Callable
from pathlib import Path

import pytest
from modalgate.launch.runs.metric_log import read_metrics

STEPS = 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretext", "supervised"])
def test_two_processes_at_half_the_batch_follow_one(
    tmp_path: Path, packed: Path, launch: Callable[..., list[int]], kind: str
) -> None:
    script, log = str(Path(__file__).parents[1] / "given" / "follower.py"), str(tmp_path / "log")
    for world in (1, 2):
        arguments = [kind, str(packed), str(tmp_path / f"run-{world}"), str(STEPS), "ddp"]
        assert launch(arguments, world, script=script, log=log) == [0] * world, Path(log).read_text()
    one, two = (read_metrics(tmp_path / f"run-{world}") for world in (1, 2))
    assert len(one) == len(two) == STEPS
    names = [name for name in one[0] if name.endswith("loss")]
    assert len(names) > 1
    for here, there in zip(one, two, strict=True):
        for name in names:
            assert there[name] == pytest.approx(here[name], abs=1e-4), f"{name} after step {here['step']}"
    assert one[-1]["loss"] < one[0]["loss"] - 0.01  # it learns: two runs that stand still would agree too


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_modality_missing_in_one_process_does_not_block(
    tmp_path: Path, packed: Path, launch: Callable[..., list[int]], strategy: str
) -> None:
    """The encoder of a modality that no clip of the batch has is not called, so its weights get no gradient there."""
    script, log = str(Path(__file__).parents[1] / "given" / "follower.py"), str(tmp_path / "log")
    arguments = ["uneven", str(packed), str(tmp_path / "run"), "6", strategy]
    assert launch(arguments, 2, script=script, log=log) == [0, 0], Path(log).read_text()
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
