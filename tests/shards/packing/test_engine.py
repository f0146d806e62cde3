"""Work spread over processes or a Ray cluster: every item once, even if an item kills its process."""

import ctypes
import importlib.util
import math
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from modalgate.shards.packing.engine import ENGINES, run_local

without_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [ray] is not installed")


def test_every_item_once() -> None:
    for workers in (1, 2, 5):
        assert dict(run_local(math.sqrt, range(20), workers)) == {n: math.sqrt(n) for n in range(20)}


def test_nothing_to_do() -> None:
    assert list(run_local(math.sqrt, [], 2)) == []


def test_errors_of_the_work_are_raised() -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(run_local(math.sqrt, [1, 4, -1, 9], 2))


def test_an_item_that_kills_its_process() -> None:
    """Reading address 0 is a segmentation fault, like that of a decoder. All other items are done."""
    items = [b"a", 0, b"b", b"c", b"d", 0, b"e"]
    done = dict(run_local(ctypes.string_at, items, 2))
    assert done == {number: item or None for number, item in enumerate(items)}


def test_a_process_that_dies_while_no_result_is_taken() -> None:
    """The pool is broken when the next item is submitted, and the item is still done."""
    # The third item: a process that meets it has returned a result before, or its neighbour has.
    items = [b"a", b"b", 0, b"c", b"d"]
    results = run_local(ctypes.string_at, items, 2)
    done = dict([next(results)])
    deadline = time.monotonic() + 240
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done |= dict(results)
    assert done == {0: b"a", 1: b"b", 2: None, 3: b"c", 4: b"d"}


WORKER = """
import time
from modalgate.shards.packing.engine import run_local
import multiprocessing
if __name__ == "__main__":
    # Long enough to keep every process busy: an idle one would take the next item, and no other would start.
    for number, _ in run_local(time.sleep, [0.3] * 4 + [600.0] * 2, 2):
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
"""


def test_workers_end_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    for _ in range(4):
        workers = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=240)[1] == []


def test_processes_that_cannot_start(tmp_path: Path) -> None:
    """Each process imports the script, which starts over without a main guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "import math\nfrom modalgate.shards.packing.engine import run_local\nlist(run_local(math.sqrt, [1, 4], 2))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("modalgate.shards.errors.RequestError: no worker process")


@without_ray
@pytest.mark.slow
def test_ray_runs_every_item_once_and_survives_a_death() -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        items = [b"a", 0, b"b", b"c"]
        assert dict(ENGINES["ray"](ctypes.string_at, items, None)) == {0: b"a", 1: None, 2: b"b", 3: b"c"}
        assert dict(ENGINES["ray"](math.sqrt, [1.0, 4.0], 1)) == {0: 1.0, 1: 2.0}
    finally:
        ray.shutdown()
