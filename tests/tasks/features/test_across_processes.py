"""Work shared by two real processes. An error in one is raised in both."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from modalgate.shards.errors import DataError
from modalgate.tasks.features.across_processes import from_first, share


def test_processes_share_work_results_and_errors(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("sharer.py")
    subprocess.run([sys.executable, str(worker), str(tmp_path)], check=True, timeout=600)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert (first.pop("done"), second.pop("done")) == ([4, 7], [1])
    assert first == second
    assert first["shared"] == [[1, 1], [4, 16], [7, 49]]
    assert first["damaged"] == "DataError: clip 3 is damaged"
    assert first["first"] == 10
    assert first["missing"] == "RequestError: there is no such file"
    # The processes are still in step after an error.
    assert first["after"] == [[2, 4]]


def test_one_process_does_all_the_work() -> None:
    assert share([3, 5], lambda numbers: {number: -number for number in numbers}) == {3: -3, 5: -5}
    assert from_first(lambda: 7) == 7

    def damaged(numbers: object) -> dict[int, int]:
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        share([1], damaged)
