"""Workers that lose the process they work for."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack

STREAM = """
import sys
import psutil
from modalgate.shards.index.table import load_index
from modalgate.shards.stream import ClipRequest, ClipStream

if __name__ == "__main__":
    stream = ClipStream(load_index(sys.argv[1]), ClipRequest(("rgb",), 1, 0.5, 2, 32), 2, workers=2)
    batches = stream.train()
    # A batch of each worker: one that has not begun when the stream is closed is terminated after five seconds.
    next(batches), next(batches)
    started = psutil.Process().children(recursive=True)
    found = [process.pid for process in started if "resource_tracker" not in "".join(process.cmdline())]
    print(*found, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parent") / "shards"
    pack(folder, out, PackSettings(modalities=("rgb",), size=32, fps=10.0), workers=1)
    return out


def test_decoding_workers_end_with_a_killed_parent(shards: Path) -> None:
    script = [sys.executable, "-c", STREAM, str(shards)]
    training = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert training.stdout is not None
    workers = [psutil.Process(int(number)) for number in training.stdout.readline().split()]
    training.kill()
    training.wait()
    left = psutil.wait_procs(workers, timeout=240)[1]
    for worker in left:
        worker.kill()
    training.communicate()
    assert len(workers) == 3  # two, and the server that started them
    assert left == []


@pytest.mark.slow
def test_closing_a_stream_early_ends_its_workers(shards: Path) -> None:
    script = STREAM.replace(
        "sys.stdin.read()", "batches.close()\n    print(*(p for p in found if psutil.pid_exists(p)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(shards)], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stderr == ""
    first, left = done.stdout.splitlines()
    assert len(first.split()) == 3
    assert len(left.split()) == 1  # the server
