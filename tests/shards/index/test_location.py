"""Shards behind URLs are read by byte range, run nothing and cannot lead elsewhere."""

import os
import pickle
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import fsspec
import pytest
import torch
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.location import MOST_OPEN, FolderReader, Joined, OpenFiles, Remote, locate
from modalgate.shards.index.table import load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream

from ...open_files import open_files

REQUEST = ClipRequest(("rgb", "audio"), 2, 0.3, 2, 32)


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("located") / "shards"
    pack(folder, out, PackSettings(modalities=("rgb", "audio"), size=32, fps=10.0, samples_per_shard=4), workers=1)
    return out


class RangeHandler(SimpleHTTPRequestHandler):
    """A file server that honours byte ranges, as every object store does, and counts what it sends."""

    sent = 0

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        data = Path(self.translate_path(self.path)).read_bytes()
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            whole, data = len(data), data[int(first) : int(last) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        # Counted first: the client may read the count as soon as the last byte has arrived.
        type(self).sent += len(data)
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the test reads what arrived, not what was asked."""


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    RangeHandler.sent = 0
    handler = partial(RangeHandler, directory=str(shards))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_over_http_equals_the_local_one(shards: Path, server: str, workers: int) -> None:
    local = list(islice(ClipStream(load_index(shards), REQUEST, 3, seed=2).train(), 2))
    remote = ClipStream(load_index(server), REQUEST, 3, seed=2, workers=workers)
    for near, far in zip(local, remote.train(), strict=False):
        assert near.key == far.key
        assert all(torch.equal(near.streams[name], far.streams[name]) for name in near.streams)
    assert RangeHandler.sent > 0


def test_a_stream_over_http_fetches_only_what_it_needs(server: str) -> None:
    only = ClipStream(load_index(server), ClipRequest(("audio",), 1, 0.3, 2, 32), 2)
    before = RangeHandler.sent
    next(only.evaluate())
    sound = sum(s.members.get("audio.wav", (0, 0))[1] for s in only.index.samples[:2])
    assert RangeHandler.sent - before == sound


def test_any_filesystem_of_fsspec(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        if path.is_file():
            memory.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    index = load_index("memory://bucket/set/")
    assert str(index.folder) == "memory://bucket/set"
    assert index.folder.name == "set"
    first, second = (next(ClipStream(i, REQUEST, 2).evaluate()) for i in (index, load_index(shards)))
    assert torch.equal(first.streams["rgb"], second.streams["rgb"])


def test_a_pipe_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(RequestError, match="would run a shell command: give a folder"):
        load_index(f"pipe:touch {mark}")
    assert not mark.exists()


def test_an_unreadable_place_is_named() -> None:
    with pytest.raises(RequestError, match="cannot read 'gopherspace://x': Protocol not known"):
        locate("gopherspace://x")
    with pytest.raises(RequestError, match=r"cannot read 'memory://nowhere/index.json'"):
        load_index("memory://nowhere")


@pytest.mark.parametrize("name", ["../index.json", "/etc/hostname", "..", "", "a/b.tar"])
def test_a_name_never_becomes_a_path(shards: Path, name: str) -> None:
    with pytest.raises(DataError, match="instead of a file name"):
        FolderReader(shards).read(name, 0, 4)


def test_a_file_that_is_too_short_is_named(shards: Path) -> None:
    size = (shards / "index.json").stat().st_size
    with pytest.raises(ValueError, match=f"'index.json' ends before byte {size + 5}"):
        FolderReader(shards).read("index.json", size, 5)


def test_open_files_stay_in_their_process(shards: Path) -> None:
    reader = FolderReader(shards)
    assert reader.read("index.json", 0, 1) == b"{"
    copied = pickle.loads(pickle.dumps(reader))
    assert len(reader.opened.held) == 1
    assert not copied.opened.held
    assert copied.read("index.json") == (shards / "index.json").read_bytes()
    assert pickle.loads(pickle.dumps(Remote("memory://x"))) == Remote("memory://x")


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    """Two folders of 100 files each. A file holds its number."""
    for number in range(200):
        path = tmp_path / "ab"[number % 2] / f"{number}.tar"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(number.to_bytes(4, "big"))
    return [tmp_path / "a", tmp_path / "b"]


def test_open_files_are_bounded_and_closed(many: list[Path]) -> None:
    """Also over all folders of a joined set."""
    folder = many[0].parent
    joined = Joined((("a", many[0]), ("b", many[1])))
    with FolderReader(joined) as reader:
        for number in [*range(200), *range(200)]:
            read = reader.read(f"{'ab'[number % 2]}/{number}.tar", 0, 4)
            assert int.from_bytes(read, "big") == number
            assert len(open_files(folder)) <= MOST_OPEN
        assert len(open_files(folder)) == MOST_OPEN
    assert not open_files(folder)
    assert reader.read("a/0.tar", 0, 4) == bytes(4), "it can be used again"


def test_a_reader_that_is_forgotten_leaves_nothing_open(many: list[Path]) -> None:
    for _ in range(5):
        FolderReader(many[0]).read("0.tar", 0, 4)
    assert not open_files(many[0])


def test_the_files_read_last_stay_open(many: list[Path]) -> None:
    files = OpenFiles(2)
    for number in (0, 2, 0, 4):
        files.read(many[0] / f"{number}.tar", 0, 4)
    assert [path.name for path in files.held] == ["0.tar", "4.tar"]


def test_threads_that_share_a_reader_read_the_right_files(many: list[Path]) -> None:
    """With two places for a hundred files, every read drops a file that another thread may be reading."""
    reader = FolderReader(many[0], OpenFiles(2))
    numbers = [number % 100 * 2 for number in range(4000)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: reader.read(f"{number}.tar", 0, 4), numbers))
    assert [int.from_bytes(data, "big") for data in read] == numbers


@pytest.fixture
def limited() -> Iterator[int]:
    """The process may open 20 more files. Gives the number of files that are open before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 20, hard))
    yield taken
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_shards_than_files_may_be_open(many: list[Path], limited: int) -> None:
    with FolderReader(many[0]) as reader:
        for number in range(0, 200, 2):
            assert int.from_bytes(reader.read(f"{number}.tar", 0, 4), "big") == number


@pytest.mark.parametrize("size", [4, None])
def test_too_many_open_files_are_not_damage(many: list[Path], size: int | None) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # With a limit of 0 no file can be opened, whatever other threads open and close.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(RequestError, match=r"too many files are open .*raise the limit with `ulimit -n`"):
            FolderReader(many[0]).read("0.tar", 0, size)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
