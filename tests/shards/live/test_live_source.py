"""A stream over real sockets: pieces as they arrive, lost connections, and pieces that are too late."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pytest
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import clip_application, default_application
from modalgate.shards.clips.piece import Piece
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Statistics
from modalgate.shards.live.address import Address, find_address
from modalgate.shards.live.connection import Arrived, Connection
from modalgate.shards.live.live_source import Gap, LiveSource, Patience
from modalgate.shards.media.container_io import write_video

SPEC = ClipSpec(0.4, 2, 32, 32, 10.0, 16000, 14.0, {"rgb": Statistics((0.0,), (1.0,))})
NAMES = ("rgb", "flow", "audio")
APPLICATION = default_application(SPEC, 1)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def broadcast() -> bytes:
    """Two seconds of noise and sound as a transport stream."""
    generator, target = np.random.default_rng(0), io.BytesIO()
    with av.open(target, "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(50):
            picture = av.VideoFrame.from_ndarray(generator.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
            samples = (generator.normal(0, 8000, (1, 640))).astype(np.int16)
            piece = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            piece.sample_rate, piece.pts = 16000, number * 640
            container.mux(audio.encode(piece))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return target.getvalue()


Station = Callable[..., str]


@pytest.fixture
def station(broadcast: bytes) -> Iterator[Station]:
    """`station(times, pieces, pause)`: address of a stream that can be read `times` times and breaks off."""
    opened: list[socket.socket] = []
    over = threading.Event()

    def start(times: int, pieces: int = 1, pause: float = 0.0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)

        def send() -> None:
            for _ in range(times):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(HEAD)
                    size = -(-len(broadcast) // pieces)
                    for first in range(0, len(broadcast), size):
                        connection.sendall(broadcast[first : first + size])
                        if pause and over.wait(pause):
                            return
            listener.close()

        threading.Thread(target=send, daemon=True).start()
        return f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}/live.ts"

    yield start
    over.set()
    for listener in opened:
        listener.close()


def address_of(text: str) -> Address:
    found = find_address(text)
    assert found is not None
    return found


def test_a_lost_connection_is_a_gap_and_the_clock_continues(station: Station) -> None:
    notices: list[str] = []
    source = LiveSource(address_of(station(2)), Patience(60, 2, 120, 0.2), notices.append)
    found: list[Piece | Gap] = []
    with pytest.raises(ConnectionError, match="gave up after 2 attempts"):
        found.extend(source.slide(SPEC, NAMES, APPLICATION))
    (gap,) = (item for item in found if isinstance(item, Gap))
    place = found.index(gap)
    before, after = found[:place], found[place + 1 :]
    assert gap.dropped == 0
    assert gap.reason.startswith("connection lost: ")
    for windows in (before, after):
        assert len(windows) >= 6
        starts = [window.start for window in windows]
        assert np.diff(starts) == pytest.approx(0.2)
        assert all(isinstance(window, Piece) and window.present == list(NAMES) for window in windows)
    assert before[0].start == 0
    assert before[-1].end <= gap.end <= after[0].start + 1e-3
    assert isinstance(before[0], Piece)
    assert before[0].clock is not None
    assert abs(before[0].clock - datetime.now(UTC).timestamp()) < 60
    assert [notice.count("secret") for notice in notices] == [0] * len(notices)
    assert sum("reconnected" in notice for notice in notices) == 1


def test_late_pieces_are_dropped_and_counted(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted lags, one per piece. From more than 0.6 s on, pieces are dropped until the lag is 0.3 s."""
    lags = iter([0.0, 0.5, 0.7, 0.5, 0.31, 0.3, 0.0, 0.61, 0.2])
    monkeypatch.setattr(Connection, "behind", property(lambda connection: next(lags)))
    source = LiveSource(address_of(station(1)), Patience(max_lag=0.6, retries=0, timeout=120))
    found = list(source.slide(SPEC, NAMES, APPLICATION))
    starts = [round(item.start, 3) for item in found if isinstance(item, Piece)]
    assert starts == [0.0, 0.2, 1.0, 1.2, 1.6]
    gaps = [(round(item.start, 3), round(item.end, 3), item.dropped) for item in found if isinstance(item, Gap)]
    assert gaps == [(0.4, 1.2, 3), (1.4, 1.8, 1)]
    assert {item.reason for item in found if isinstance(item, Gap)} == {"the model is behind"}
    assert next(lags, None) is None


def test_the_lag_is_what_has_arrived_and_was_not_taken(station: Station) -> None:
    connection = Connection(address_of(station(1)), 120, 60)
    connection.thread.join(120)
    assert connection.ended
    times = []
    while (item := connection.take()) is not None:
        assert isinstance(item, Arrived)
        if item.packet.stream is connection.leader:
            times.append(float(item.packet.dts * item.packet.time_base))
            assert connection.behind == pytest.approx(connection.newest - times[-1])
    assert len(times) == 50
    assert connection.newest == times[-1] == pytest.approx(times[0] + 49 / 25)
    assert connection.behind == 0
    connection.close()


def test_a_source_that_never_opened_is_not_retried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        next(LiveSource(address_of(f"http://127.0.0.1:{port}/"), Patience(timeout=2)).slide(SPEC, NAMES, APPLICATION))


@pytest.mark.parametrize("protocol", ["http", "rtsp"])
def test_a_silent_server_times_out(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = address_of(f"{protocol}://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(TimeoutError, match=r"no data for 0\.5 s"):
            next(LiveSource(address, Patience(timeout=0.5)).slide(SPEC, NAMES, APPLICATION))


def test_a_source_that_stops_sending_is_lost(station: Station) -> None:
    """Half of the broadcast, then nothing."""
    notices: list[str] = []
    source = LiveSource(address_of(station(1, 2, 600)), Patience(retries=0, timeout=1), notices.append)
    assert list(source.slide(SPEC, NAMES, APPLICATION))
    assert [notice.split(": ", 1)[1] for notice in notices] == ["connection lost: no data for 1 s"]


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_address("film.mp4") is None
    assert address_of("rtsp://camera/1").options == {"rtsp_transport": "tcp"}
    assert str(address_of("http://me:secret@camera/1")).count("secret") == 0
    monkeypatch.chdir(tmp_path)
    assert find_address("0") is not None
    (tmp_path / "0").touch()
    assert find_address("0") is None
    with pytest.raises(RequestError, match="did you mean 'rtsp"):
        find_address("rtspp://camera/1")
    with pytest.raises(RequestError, match="names no host"):
        find_address("rtsp://")


def test_pieces_of_a_stream_have_several_views(station: Station) -> None:
    application = clip_application(3, [1.5], 30.0)
    source = LiveSource(address_of(station(1)), Patience(retries=0))
    pieces = [item for item in source.slide(SPEC, NAMES, application) if isinstance(item, Piece)]
    assert [len(piece.views) for piece in pieces] == [3] * len(pieces)
    assert pieces[0].start == pytest.approx(0, abs=0.1)
    for piece in pieces:
        assert piece.end - piece.start == pytest.approx(1.5)
        assert piece.clock is not None
        assert not piece.whole


def test_a_camera_that_restarts_stays_in_time_with_its_sound(tmp_path: Path, beep: Callable) -> None:
    """Two captures of 2 and 3 s follow each other on one connection, and the clock starts again in between.

    The stream has no length, so the second begins a new section. In each, flash and beep are one second apart from
    the start and coincide.
    """
    parts = []
    for number, seconds in enumerate((2.0, 3.0)):
        frames = np.full((round(seconds * 25), 32, 32, 3), 16, np.uint8)
        frames[25:30] = 235
        path = tmp_path / f"{number}.ts"
        sound = beep(seconds, 1.0, 0.2)
        write_video(path, frames, 25, sound=sound, sound_codec="mp2", options={"bf": "0", "g": "10"})
        parts.append(path.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def send() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(HEAD + b"".join(parts))

        threading.Thread(target=send, daemon=True).start()
        address = address_of(f"http://127.0.0.1:{listener.getsockname()[1]}/live.ts")
        source = LiveSource(address, Patience(max_lag=60, retries=0))
        found = list(source.slide(replace(SPEC, frames=4), ("rgb", "audio"), default_application(SPEC, 1), 0.4))
    place = next(number for number, item in enumerate(found) if isinstance(item, Gap))
    assert found[place].reason == "its clock jumped"  # pyright: ignore
    for pieces in (found[:place], found[place + 1 :]):
        views = [piece.views[0].streams for piece in pieces if isinstance(piece, Piece)]
        bright = np.concatenate([view["rgb"].mean(axis=(1, 2, 3)) for view in views]) > 128
        sound = np.concatenate([view.get("audio", np.zeros(6400)) for view in views])
        assert np.flatnonzero(bright)[0] / 10 == pytest.approx(1.0, abs=0.05)
        assert np.flatnonzero(np.abs(sound) > 0.2)[0] / 16000 == pytest.approx(1.0, abs=0.06)
