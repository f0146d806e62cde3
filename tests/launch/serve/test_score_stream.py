"""Streamed lines of a recording equal those of `predict`, and its errors equal those of the command line."""

import asyncio
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from modalgate.fusion.bundle.bundle import Bundle, load_bundle
from modalgate.launch.cli import main
from modalgate.launch.serve import score_stream
from modalgate.launch.serve.score_stream import Limits, Wish, score
from modalgate.launch.serve.uploads import place
from modalgate.launch.serve.waiting_queue import Turns
from modalgate.shards.errors import DataError
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.tasks.prediction.highlights import highlights
from modalgate.tasks.prediction.window_scores import predict

from ..given.odd_films import ODD_FILMS

DEFAULT = Wish()


@pytest.fixture(scope="module")
def bundle(action_bundle: Path) -> Bundle:
    return load_bundle(action_bundle)


def lines_of(bundle: Bundle, wish: Wish = DEFAULT, limits: Limits | None = None, **files: Path) -> list[Any]:
    """The lines of copies of `files` in the upload folder."""

    async def collect() -> list[Any]:
        turns = Turns(0)
        uploads = {}
        for role, file in files.items():
            uploads[role] = place(file.parent, f"upload-of-{role}", file.name)
            uploads[role].path.write_bytes(file.read_bytes())
        try:
            return [line async for line in score(bundle, turns, uploads, wish, limits)]
        finally:
            turns.close()

    return asyncio.run(collect())


def of_kind(lines: list[Any], kind: str) -> list[Any]:
    return [{key: value for key, value in line.items() if key != "kind"} for line in lines if line["kind"] == kind]


def test_lines_equal_predict(bundle: Bundle, hall_film: Path) -> None:
    lines = lines_of(bundle, video=hall_film)
    expected = list(predict(bundle, {"video": hall_film}, batch_size=4))
    assert of_kind(lines, "window") == [window.facts() for window in expected]
    classes = list(expected[0].probabilities)
    facts = {"file": "hall.mp4", "duration": 6.0, "classes": classes, "modalities": ["rgb", "audio", "inertial"]}
    assert of_kind(lines, "recording") == [facts]
    assert [line["kind"] for line in lines] == ["recording", *["window"] * len(expected), "clip", "frames", "end"]
    assert lines[-1]["windows"] == len(expected)


def test_missing_sound_is_in_the_note(bundle: Bundle, hall_film: Path, tmp_path: Path) -> None:
    """The packets from 2 to 3.5 s of the sound are missing; nothing is damaged."""
    with av.open(str(hall_film)) as whole, av.open(str(tmp_path / "a.mkv"), "w") as cut:
        streams = {stream.index: cut.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is None or packet.pts is None:
                continue
            if packet.stream.type == "video" or not 2.0 <= float(packet.pts * packet.time_base) < 3.5:
                packet.stream = streams[packet.stream.index]
                cut.mux(packet)
    (line,) = of_kind(lines_of(bundle, Wish(), video=tmp_path / "a.mkv"), "note")
    assert re.fullmatch(r"'a\.mkv': sound is missing from (1\.9|2\.\d) to 3\.\d s", line["note"])


def test_frames_are_the_middles_of_the_top_windows(bundle: Bundle, hall_film: Path) -> None:
    lines = lines_of(bundle, Wish(frames=3, class_name="fight"), video=hall_film)
    (found,) = of_kind(lines, "frames")
    expected = highlights(list(predict(bundle, {"video": hall_film}, batch_size=4)), 3, "fight")
    shown = [(frame["time"], frame["class"], frame["score"]) for frame in found["frames"]]
    assert shown == [(one.time, "fight", one.score) for one in expected]
    for frame in found["frames"]:
        kind, _, data = frame["image"].partition(",")
        assert kind == "data:image/jpeg;base64"
        picture = cv2.imdecode(np.frombuffer(b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        # The film grows brighter by 160 levels in 6 seconds.
        assert picture.mean() == pytest.approx(50 + 160 * frame["time"] / 5.9, abs=6)


def test_step_is_as_requested(bundle: Bundle, hall_film: Path) -> None:
    starts = [window["start"] for window in of_kind(lines_of(bundle, Wish(hop=1.5), video=hall_film), "window")]
    assert starts == [0, 1.5, 3, 4.5]


def test_other_streams_are_separate_files(bundle: Bundle, hall_film: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "imu.npy", np.zeros((150, 6), np.float32))
    write_wave(tmp_path / "sound.wav", np.random.default_rng(0).normal(0, 0.2, 32000).astype(np.float32), 16000)
    lines = lines_of(bundle, video=hall_film, inertial=tmp_path / "imu.npy", audio=tmp_path / "sound.wav")
    windows = of_kind(lines, "window")
    assert windows[0]["present"] == ["rgb", "audio", "inertial"]
    assert windows[-1]["present"] == ["rgb"]


def test_error_names_the_client_file_of_a_signal(bundle: Bundle, hall_film: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "imu.npy", np.zeros((150, 5), np.float32))
    with pytest.raises(DataError, match=r"'imu.npy' has shape \(150, 5\), inertial needs") as raised:
        lines_of(bundle, video=hall_film, inertial=tmp_path / "imu.npy")
    assert "upload" not in str(raised.value)


def test_sound_alone_gives_scores_without_pictures(bundle: Bundle, tmp_path: Path) -> None:
    write_wave(tmp_path / "sound.wav", np.random.default_rng(0).normal(0, 0.2, 32000).astype(np.float32), 16000)
    lines = lines_of(bundle, video=tmp_path / "sound.wav")
    assert of_kind(lines, "window")[0]["present"] == ["audio"]
    (found,) = of_kind(lines, "frames")
    assert found["frames"]
    assert {frame["image"] for frame in found["frames"]} == {None}


def test_truncated_film_is_scored_up_to_the_cut_with_a_note(
    bundle: Bundle, action_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film.mkv"
    write_video(film, np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3)).astype(np.uint8), 10)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    lines = lines_of(bundle, video=film)
    assert of_kind(lines, "window")
    assert [line["kind"] for line in lines[-3:]] == ["frames", "note", "end"]
    assert lines[-3]["frames"][0]["image"]
    assert main(["predict", str(action_bundle), str(film)]) == 3
    said = capsys.readouterr().err.strip()
    assert said == "error: " + lines[-2]["note"].replace("'film.mkv'", f"'{film}'", 1)


# The tests of `predict` read all films in every run. Here the others are slow.
SERVED = ("no_sound.mp4", "variable_rate.mkv", "damaged_middle.mp4", "text.mp4")


@pytest.mark.parametrize(
    "name", [name if name in SERVED else pytest.param(name, marks=pytest.mark.slow) for name in ODD_FILMS]
)
def test_odd_films_are_scored_or_rejected_as_by_predict(
    name: str, odd_films: Path, bundle: Bundle, action_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The note is about the worst damage."""
    status, scored, _ = ODD_FILMS[name]
    film = odd_films / name
    if scored:
        lines = lines_of(bundle, video=film)
        assert of_kind(lines, "window")
        note = "".join(line["note"] for line in of_kind(lines, "note"))
    else:
        with pytest.raises(DataError) as raised:
            lines_of(bundle, video=film)
        note = str(raised.value)
    assert bool(note) == (status != 0 or "damaged" in name)
    assert main(["predict", str(action_bundle), str(film)]) == status
    said = capsys.readouterr().err.splitlines()
    expected = f"{'error: ' * (status != 0)}{note}".replace(f"'{name}'", f"'{film}'", 1)
    assert said[-1:] == [expected] * bool(note)


def test_playlist_opens_no_other_file(bundle: Bundle, tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", np.zeros((10, 32, 32, 3), np.uint8), 10)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.ts\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'list.mp4' cannot be read: its format is not accepted"):
        lines_of(bundle, video=tmp_path / "list.mp4")


def test_a_recording_is_abandoned_at_the_deadline(bundle: Bundle, hall_film: Path) -> None:
    with pytest.raises(DataError, match=r"'hall.mp4' cannot be read: it is not scored after 0 s \(--deadline\)"):
        lines_of(bundle, limits=Limits(deadline=0), video=hall_film)


def test_more_windows_than_the_limit_are_refused_by_the_duration(bundle: Bundle, hall_film: Path) -> None:
    with pytest.raises(DataError, match="more than 20000 pieces: give a larger hop"):
        lines_of(bundle, Wish(hop=0.0002), video=hall_film)


def test_windows_beyond_the_limit_end_a_recording_whose_duration_is_wrong(
    bundle: Bundle, hall_film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the file had given a duration below the limit."""
    monkeypatch.setattr(score_stream, "_check_count", lambda duration, hop: None)
    monkeypatch.setattr(score_stream, "MOST_WINDOWS", 2)
    lines = lines_of(bundle, Wish(hop=0.5), video=hall_film)
    assert lines[-1]["windows"] == 3
    (note,) = of_kind(lines, "note")
    assert note["note"].endswith("cannot be read: " + score_stream.TOO_MANY)
