"""Packing that is killed at every stage and rerun: the bytes equal those of an uninterrupted run."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.media.pack_settings import PackSettings, difference
from modalgate.shards.packing.pack import pack

SCRIPT = Path(__file__).with_name("killed_pack.py")
SETTINGS = PackSettings(modalities=("rgb", "audio", "inertial"), size=32, fps=10.0, samples_per_shard=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "shards"
    pack(folder, out, SETTINGS, workers=1)
    assert set(os.listdir(out)) == {"index.json", "shard-000000.tar", "shard-000001.tar"}
    return contents(out)


@pytest.fixture(scope="module")
def run_killed(folder: Path) -> Iterator[Callable[[Path, int], int]]:
    """`run_killed(out, n)`: packs until the n-th rename, and returns the signal that ended it."""
    with subprocess.Popen(
        [sys.executable, SCRIPT, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(out: Path, last: int) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{last} {out}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run


def test_killed_at_every_stage(
    folder: Path, run_killed: Callable, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    """Kills one packing again and again: before the renames of settings, a recording's files, a shard and the index.

    Every file with a final name is complete.
    """
    out = tmp_path / "out"
    # Renames of a complete run: settings, two files for each of 6 recordings, two shards, the index. Then a folder is
    # removed.
    for last, encoded in ((1, 0), (2, 0), (4, 1), (6, 3), (7, 6)):
        assert run_killed(out, last) == signal.SIGKILL
        assert len(list(out.glob(".packing/clips/*.json"))) == encoded
        assert not list(out.glob("*.tar"))
    for last, whole in ((2, 1), (3, 2), (4, 3)):
        assert run_killed(out, last) == signal.SIGKILL
        found = {path.name for path in out.iterdir() if path.suffix in (".tar", ".json")}
        assert len(found) == whole
        assert all((out / name).read_bytes() == uninterrupted[name] for name in found)
        assert (out / ".packing").is_dir()
    pack(folder, out, SETTINGS, workers=2)
    assert contents(out) == uninterrupted
    assert not (out / ".packing").exists()


COMMAND = """
import sys
from pathlib import Path
from modalgate.shards.packing.pack import pack
sys.path.insert(0, sys.argv[1])
from killed_pack import SETTINGS
told = []

def tell(*counts):
    print(*counts, flush=True)
    told.append(counts)
    if len(told) == 3:
        sys.stdin.readline()  # until the signal comes

if __name__ == "__main__":
    pack(Path(sys.argv[2]), Path(sys.argv[3]), SETTINGS, workers=2, progress=tell)
"""


@pytest.mark.parametrize(
    "stop",
    [signal.SIGKILL, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGINT, signal.SIGTERM))],
)
def test_stopped_with_two_workers(
    folder: Path, tmp_path: Path, uninterrupted: dict[str, bytes], stop: signal.Signals
) -> None:
    """A signal from outside while two processes encode. Encoded recordings are not encoded again."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", COMMAND, SCRIPT.parent, folder, out]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **pipes, text=True)
    assert process.stdout is not None
    # The first line reports the start, each other line a recording.
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(stop)
    process.communicate()
    assert process.returncode == -stop
    assert not (out / "index.json").exists()
    told: list[tuple[int, int, int]] = []
    pack(folder, out, SETTINGS, workers=1, progress=lambda *counts: told.append(counts))
    assert told[0][0] >= 2
    assert contents(out) == uninterrupted


def test_a_disk_that_is_full(folder: Path, tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    """No file may exceed 20 kB: a recording fits, a shard does not. With more room, packing resumes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(RequestError, match=r"cannot write to '.*out' \(File too large\)"):
            pack(folder, tmp_path / "out", SETTINGS, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").glob("*.tar")) == []
    pack(folder, tmp_path / "out", SETTINGS, workers=1)
    assert contents(tmp_path / "out") == uninterrupted


@pytest.fixture(scope="module")
def killed(run_killed: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("killed") / "out"
    assert run_killed(out, 15) == signal.SIGKILL
    return out


@pytest.fixture
def begun(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "out"))


def test_other_settings_are_refused(folder: Path, begun: Path, uninterrupted: dict[str, bytes]) -> None:
    other = replace(SETTINGS, size=48, modalities=("rgb",))
    said = r"unfinished packing with modalities rgb,audio,inertial, not rgb, size 32, not 48"
    with pytest.raises(RequestError, match=said):
        pack(folder, begun, other)
    with pytest.raises(RequestError, match="max_pixels 33177600, not 100"):
        pack(folder, begun, replace(SETTINGS, max_pixels=100))
    # Bounds may be raised when resuming, which accepts a rejected recording.
    index = pack(folder, begun, replace(SETTINGS, max_seconds=1e6), workers=1)
    assert index.settings.max_seconds == 1e6
    shards = {name: data for name, data in contents(begun).items() if name.endswith(".tar")}
    assert shards.items() <= uninterrupted.items()


def test_samples_per_shard_may_change_when_resuming(folder: Path, begun: Path, tmp_path: Path) -> None:
    """One shard of four clips exists. All clips are then written in pairs, as from the start."""
    assert [path.name for path in begun.glob("*.tar")] == ["shard-000000.tar"]
    pairs = replace(SETTINGS, samples_per_shard=2, seed=3)
    pack(folder, tmp_path / "pairs", pairs, workers=1)
    told: list[tuple[int, int, int]] = []
    pack(folder, begun, pairs, workers=1, progress=lambda *counts: told.append(counts))
    assert told[0] == (6, 6, 0)
    assert contents(begun) == contents(tmp_path / "pairs")


def test_a_second_packing_at_the_same_time_is_refused(folder: Path, begun: Path) -> None:
    with (begun / ".packing" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RequestError, match="is being packed by another process"):
            pack(folder, begun, SETTINGS)


def test_changed_recordings_are_encoded_again(folder: Path, begun: Path, tmp_path: Path) -> None:
    """Of six recordings, one video is rewritten and one gets another label."""
    copied = shutil.copytree(folder, tmp_path / "in")
    os.utime(copied / "video" / "c1.mp4")
    labels = (copied / "labels.csv").read_text().splitlines()
    labels[-1] = labels[-1].replace("calm", "quiet")
    (copied / "labels.csv").write_text("\n".join(labels) + "\n")
    told: list[tuple[int, int, int]] = []
    index = pack(copied, begun, SETTINGS, workers=1, progress=lambda *counts: told.append(counts))
    assert told[0] == (4, 6, 0)
    assert {sample.key: sample.labels["label"] for sample in index.samples}["c5"] == "quiet"


def test_difference(small: Callable) -> None:
    assert difference({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 2]}) == ""
    assert re.fullmatch("b 1,2, not 1, c None, not 3", difference({"b": [1, 2]}, {"b": [1], "c": 3}))


def test_an_unfinished_packing_of_an_older_version_is_resumed(folder: Path, tmp_path: Path, small: Callable) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="cannot fill a shard"):
        pack(folder, out, small(modalities=("inertial",), readers=9), workers=1)
    path = out / ".packing" / "settings.json"
    content = json.loads(path.read_text())
    del content["declared"]
    path.write_text(json.dumps(content))
    assert len(pack(folder, out, small(modalities=("inertial",)), workers=1).samples) == 6
