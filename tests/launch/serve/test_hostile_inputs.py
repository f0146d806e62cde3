"""Hostile files and requests of `benchmarks/hostile`: the main ones here, all of them and their cost when slow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..given.served import Served, until

FOLDER = Path(__file__).parents[3] / "benchmarks" / "hostile"
FILES = {
    "a picture eleven days ahead": "more than 3600",
    "a header of 64 pixels, pictures of 144 million": "of more than 33177600 pixels",
    "a table of sixty million pictures": "announces 60000000 samples",
    "a playlist of local files": "it holds no media",
    "a list of local files": "format is not accepted",
    "a pickled object in an array": "Python objects",
    "an archive of pickles": "magic string is not correct",
    "a terabyte of rows": "greater than file size",
    "a deep header": "damaged header",
    "a MATLAB file of two billion rows": "cannot be read as a MATLAB file",
    "numbers that are not finite": "not finite",
}
REQUESTS = {
    "a host of one bracket": 421,
    "an origin of one bracket": 403,
    "a form without a boundary": 400,
    "a file name with a path": 422,
    "a field that the model lacks": 400,
    "a step of nothing": 422,
}


@pytest.fixture(scope="module")
def hostile() -> Any:
    """The modules of the benchmark, which import each other by name."""
    sys.path.insert(0, str(FOLDER))
    try:
        import hostile_files
        import hostile_requests
    finally:
        sys.path.remove(str(FOLDER))
    return hostile_files, hostile_requests


def test_main_hostile_inputs_are_refused_and_the_server_lives(hostile: Any, server: Served, hall_film: Path) -> None:
    files, requests = hostile
    target = requests.Server(server.process, server.port)
    for name, reason in FILES.items():
        role, file, make = files.FILES[name]
        status, line = requests.upload(role, file, make())(target)
        assert (name, status) == (name, 422)
        assert reason in line
    for name, expected in REQUESTS.items():
        assert (name, requests.REQUESTS[name](target)[0]) == (name, expected)
    assert server.predict("?frames=1&hop=3", video=hall_film).status == 200
    assert "Traceback" not in server.said.read_text()
    assert "internal error" not in server.said.read_text()
    until(lambda: not server.kept())


@pytest.mark.slow
def test_no_hostile_input_costs_much_and_the_server_lives_after_all(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "hostile_inputs.py", "--json", tmp_path / "rows.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len({row["name"] for row in rows}) > 60
    assert {row["door"] for row in rows} == {"serve", "predict", "embed", "pack", "load_bundle", "load_encoder"}
