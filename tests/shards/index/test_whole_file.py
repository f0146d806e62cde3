"""A file is whole or as it was, whatever its writer does."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.whole_file import (
    FIGURES,
    PAGE,
    PICTURE,
    keep_others,
    keep_results,
    remove_lost,
    remove_partial,
    sha256,
    whole_file,
    write_whole,
)


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "facts.json"
    write_whole(target, b"old")
    with whole_file(target) as partial:
        partial.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        assert partial.parent == tmp_path
        assert partial.suffix == ".partial"
    assert target.read_bytes() == b"new"
    assert sha256(target) == hashlib.sha256(b"new").hexdigest()
    assert list(tmp_path.iterdir()) == [target]


def test_results_are_replaced_only_on_request(tmp_path: Path) -> None:
    lines, folder = tmp_path / "lines.jsonl", tmp_path / "bundle"
    for place in (lines, folder, Path(os.devnull)):
        keep_results(place, "--out")
    lines.touch()
    folder.mkdir()
    for place in (lines, folder):
        keep_results(place, "--out")
    lines.write_text("{}")
    (folder / "weights").touch()
    for place in (lines, folder):
        with pytest.raises(RequestError, match=f"'{place}' already exists: give another --out, or add --overwrite"):
            keep_results(place, "--out")
        keep_results(place, "--out", overwrite=True)


@pytest.mark.parametrize(
    ("form", "content", "replaced"),
    [
        (FIGURES, b'{\n  "auc": 0.7\n}\n', True),
        (FIGURES, b"[\n  {}\n]\n", True),
        (FIGURES, b"", True),
        (FIGURES, b'{"start": 0.0, "end": 2.0}\n', False),  # lines of a prediction
        (FIGURES, b"video,label\n", False),
        (FIGURES, b'{\n  "format_version": 2\n}\n', False),  # of a bundle
        (PAGE, b"<!DOCTYPE html>\n<html>", True),
        (PAGE, b"{}", False),
        (PICTURE, b"\x89PNG\r\n\x1a\n", True),
        (PICTURE, b"\xff\xd8\xff\xe0 a photograph", False),
    ],
)
def test_a_summary_replaces_only_a_summary(tmp_path: Path, form: str, content: bytes, replaced: bool) -> None:
    path = tmp_path / "there"
    keep_others(path, "--json", form)
    path.write_bytes(content)
    if replaced:
        keep_others(path, "--json", form)
    else:
        with pytest.raises(RequestError, match=f"'{path}' already exists and is not a {form}: give another --json"):
            keep_others(path, "--json", form)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with whole_file(tmp_path / "facts.json") as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_the_writer_s_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "no" / "facts.json", b"")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file" / "facts.json", b"")


def test_the_suffix_is_kept_for_writers_that_choose_by_it(tmp_path: Path) -> None:
    with whole_file(tmp_path / "graph.onnx", keep_suffix=True) as partial:
        assert partial.suffix == ".onnx"
        assert partial.name.startswith(".partial-")
        partial.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_a_kill_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "facts.json"
    write_whole(target, b"old")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from modalgate.shards.index.whole_file import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], env=os.environ, check=False)
    assert done.returncode == -9
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_partial(target)
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, sys
from pathlib import Path
from modalgate.shards.index.whole_file import whole_file

with whole_file(Path(sys.argv[1]), keep_suffix=sys.argv[2] == "True") as partial:
    partial.write_bytes(b"half")
    os._exit(9)
"""


@pytest.mark.parametrize("keep_suffix", [False, True])
def test_the_partial_file_of_a_killed_writer_is_removed_by_the_next(tmp_path: Path, keep_suffix: bool) -> None:
    target = tmp_path / "features.npz"
    subprocess.run([sys.executable, "-c", KILLED, str(target), str(keep_suffix)], check=False)
    (left,) = tmp_path.iterdir()
    # Of a process that runs, of another machine, and of the user.
    alive = left.with_name(re.sub(r"([0-9a-f]{8}-)\d+", rf"\g<1>{os.getppid()}", left.name))
    other = left.with_name(re.sub(r"[0-9a-f]{8}-", "0123abcd-", left.name))
    kept = [alive, other, tmp_path / "movie.partial", tmp_path / ".partial-notes.txt"]
    for path in kept:
        path.write_bytes(b"half")
    write_whole(tmp_path / "facts.json", b"{}")
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "facts.json"}
    os.utime(other, (0, 0))
    remove_lost(tmp_path)
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "facts.json"} - {other}
