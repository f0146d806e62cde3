"""`predict` on good and bad recordings, from the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.shards.clips.piece import Window
from modalgate.shards.media.container_io import iterate_frames, write_video

from ..given.odd_films import ODD_FILMS, write_timed


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Six seconds of noise, so that every second takes as many bytes."""
    pictures = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3)).astype(np.uint8)
    path = tmp_path / "film.mkv"
    write_video(path, pictures, 10)
    return path


def windows(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["kind"] == "window"]


def predicted(model: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The windows of a film that is whole."""
    capsys.readouterr()
    assert main(["predict", str(model), str(path)]) == 0
    return windows(capsys.readouterr().out)


def test_lines_go_to_the_file_or_to_standard_output(
    trained_run: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(film)]) == 0
    said = windows(capsys.readouterr().out)
    assert main(["predict", str(trained_run), str(film), "--out", str(tmp_path / "lines.jsonl")]) == 0
    assert not any(line.startswith("{") for line in capsys.readouterr().out.splitlines())
    assert windows((tmp_path / "lines.jsonl").read_text()) == said
    assert main(["predict", str(trained_run), str(film), "--out", str(tmp_path / "no" / "lines.jsonl")]) == 2
    assert "--out" in capsys.readouterr().err


def test_earlier_lines_are_replaced_only_with_overwrite(
    trained_run: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.jsonl"
    command = ["predict", str(trained_run), str(film), "--out", str(out)]
    assert main(command) == 0
    first = out.read_bytes()
    assert main([*command, "--hop", "3"]) == 2
    assert "lines.jsonl' already exists: give another --out, or add --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == first
    assert main([*command, "--hop", "3", "--overwrite"]) == 0
    assert len(windows(out.read_text())) == 2 < len(windows(first.decode()))


def test_truncated_film_is_predicted_up_to_the_cut(
    trained_run: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = film.stat().st_size
    film.write_bytes(film.read_bytes()[: whole // 2])
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(film)]) == 3
    said = capsys.readouterr()
    found = windows(said.out)
    assert found
    assert found[0]["start"] == 0
    assert 1.5 < float(str(found[-1]["end"])) < 4.5
    assert "cut short" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("name", ODD_FILMS)
def test_every_odd_film_gives_windows_or_an_error(
    name: str, odd_films: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, scored, says = ODD_FILMS[name]
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(odd_films / name)]) == status
    said = capsys.readouterr()
    found = windows(said.out)
    assert bool(found) == scored
    for window in found:
        assert sum(window["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert says in said.err
    assert said.err.count("\n") == (status != 0) + ("damaged" in name)
    if status:
        assert f"/{name}'" in said.err


def test_without_a_sound_track_sound_is_absent(
    odd_films: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, present in {"no_sound.mp4": ["rgb"], "one_second.mp4": ["rgb", "audio"]}.items():
        found = predicted(trained_run, odd_films / name, capsys)
        assert {tuple(window["present"]) for window in found} == {tuple(present)}
        assert all((window["gates"]["audio"] == 0) == ("audio" not in present) for window in found)


@pytest.mark.parametrize(
    ("name", "end"),
    [("one_second.mp4", 1.0), ("one_frame.mp4", 0.1), ("still_end.mkv", 5.0), ("joined_late.mkv", 3.0)],
)
def test_windows_cover_the_end(
    name: str, end: float, odd_films: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predicted(trained_run, odd_films / name, capsys)
    assert found[0]["start"] == 0
    assert found[-1]["end"] == pytest.approx(end)


def test_a_damaged_film_is_predicted_and_drawn_to_its_end(odd_films: Path, trained_run: Path, tmp_path: Path) -> None:
    out, drawn, figures = (tmp_path / name for name in ("lines.jsonl", "drawn.mp4", "figures.json"))
    command = ["predict", str(trained_run), str(odd_films / "damaged_middle.mp4"), "--out", str(out)]
    assert main([*command, "--video", str(drawn), "--json", str(figures)]) == 0
    assert [window["end"] for window in windows(out.read_text())][-1] == pytest.approx(3)
    assert json.loads(figures.read_text())["recordings"][0]["damaged"] == 3
    times = [time for time, _ in iterate_frames(drawn)]
    assert (len(times), times[-1]) == (27, pytest.approx(2.9))


def test_rotated_phone_film_is_decoded_upright(
    trained_run: Path, tmp_path: Path, seen: list[Window], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bright above and dark below, as its stored pictures are not."""
    upright = np.linspace(230, 20, 64).repeat(48).reshape(64, 48, 1).repeat(3, axis=-1).astype(np.uint8)
    stored = np.ascontiguousarray(np.rot90(upright, -1))
    write_timed(tmp_path / "phone.mp4", np.stack([stored] * 8), np.arange(8) / 10, rotation=90)
    assert predicted(trained_run, tmp_path / "phone.mp4", capsys)
    rgb = np.concatenate([window.streams["rgb"] for window in seen]).astype(float)
    # The model sees the central 48 of the 64 rows.
    assert (rgb.mean(axis=(0, 1, 3))[0], rgb.mean(axis=(0, 1, 3))[-1]) == pytest.approx((204, 46), abs=8)
    assert np.ptp(rgb.mean(axis=(0, 1, 2))) < 3


def test_variable_frame_rate_keeps_times(
    trained_run: Path, tmp_path: Path, seen: list[Window], capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures that grow brighter by the second, taken at irregular times at most 0.1 s apart."""
    times = np.cumsum(np.random.default_rng(1).choice([0.01, 0.02, 0.05, 0.1], 70))
    levels = np.broadcast_to(20 + 50 * (times - times[0])[:, None, None, None], (70, 48, 64, 3)).astype(np.uint8)
    write_timed(tmp_path / "variable.mp4", levels, times)
    found = predicted(trained_run, tmp_path / "variable.mp4", capsys)
    assert found[-1]["end"] == pytest.approx(times[-1] - times[0], abs=0.3)
    for window in seen:
        # Two frames at 10 per second, in the middles of the window's halves.
        expected = [20 + 50 * (window.start + offset) for offset in (0.1, 0.3)]
        assert window.streams["rgb"].mean(axis=(1, 2, 3)) == pytest.approx(expected, abs=2.5 + 3)


def test_one_short_film_is_one_window(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "short.mkv", np.zeros((3, 32, 32, 3), np.uint8), 10)
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(tmp_path / "short.mkv")]) == 0
    (window,) = windows(capsys.readouterr().out)
    assert (window["start"], window["end"], window["present"]) == (0, 0.3, ["rgb"])


def repeat(source: Path, target: Path, times: int) -> None:
    """The same packets of `source` over and over, each time later."""
    with av.open(str(target), "w") as written:
        streams: dict[int, Any] = {}
        for number in range(times):
            with av.open(str(source)) as read:
                assert read.duration is not None
                seconds = number * round(read.duration / 1e6)
                for packet in read.demux():
                    if packet.dts is None or packet.pts is None:
                        continue
                    if packet.stream.index not in streams:
                        streams |= {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
                    later = round(seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts + later, packet.dts + later
                    packet.stream = streams[packet.stream.index]
                    written.mux(packet)


@pytest.mark.slow
@pytest.mark.parametrize("film_too", [False, True])
def test_memory_does_not_grow_with_the_film(film_too: bool, trained_run: Path, tmp_path: Path) -> None:
    """Ten minutes after one: their pictures take 55 MB, their sound 38 MB."""
    seconds, rate = 30, 16000
    pictures = np.zeros((10 * seconds, 48, 64, 3), np.uint8)
    for number, picture in enumerate(pictures):
        picture[8:40, number % 32 : number % 32 + 20] = 200
    # AAC adds a little to either end.
    sound = np.random.default_rng(0).normal(0, 0.1, (seconds - 1) * rate).astype(np.float32)
    write_video(tmp_path / "part.mp4", pictures, 10, sound=sound, sound_codec="aac", sample_rate=rate)
    commands = []
    for minutes in (1, 10):
        repeat(tmp_path / "part.mp4", tmp_path / f"{minutes}.mkv", 2 * minutes)
        outputs = {"--out": f"{minutes}.jsonl", "--png": f"{minutes}.png"}
        outputs |= {"--video": f"drawn-{minutes}.mkv"} if film_too else {}
        written = [part for option, name in outputs.items() for part in (option, str(tmp_path / name))]
        commands.append(["predict", str(trained_run), str(tmp_path / f"{minutes}.mkv"), "--hop", "3", *written])
    script = Path(__file__).with_name("peak_memory.py")
    done = subprocess.run([sys.executable, script, json.dumps(commands)], capture_output=True, text=True, check=True)
    short, long = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert len(windows((tmp_path / "10.jsonl").read_text())) == 200
    assert long - short < 16


def test_folder_continues_after_an_unreadable_film(
    odd_films: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A complete film, a file that is not a film, a truncated film, and a film in a subfolder."""
    folder, out, drawn = tmp_path / "hall", tmp_path / "lines.jsonl", tmp_path / "drawn"
    places = {"a.mp4": "one_second.mp4", "b.mp4": "text.mp4", "c.mkv": "cut.mkv", "night/d.mp4": "no_sound.mp4"}
    for name, odd in places.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(odd_films / odd, folder / name)
    command = ["predict", str(trained_run), str(folder), "--out", str(out), "--png", str(drawn)]
    capsys.readouterr()
    assert main([*command, "--json", str(tmp_path / "figures.json")]) == 3
    said = capsys.readouterr()
    text, cut, last = (line for line in said.err.splitlines() if "error: " in line)
    assert text == f"error: '{folder / 'b.mp4'}' cannot be read: it holds no media that FFmpeg can read"
    assert cut.startswith(f"error: '{folder / 'c.mkv'}', beyond ")
    assert last == f"error: 2 of 4 recordings in '{folder}' cannot be read in full"
    found = windows(out.read_text())
    readable = ["a.mp4", "c.mkv", "night/d.mp4"]
    assert list(dict.fromkeys(window["file"] for window in found)) == readable
    assert [window["start"] for window in found if window["file"] == "a.mp4"] == pytest.approx([0, 0.2, 0.4, 0.6])
    figures = json.loads((tmp_path / "figures.json").read_text())["recordings"]
    assert [entry["title"] for entry in figures] == readable
    assert sum(entry["windows"] for entry in figures) == len(found)
    assert [name in said.out for name in ("a.mp4", "b.mp4", "c.mkv", "d.mp4")] == [True, False, True, True]
    assert len(list(drawn.rglob("*.png"))) == 3


def test_a_folder_of_frames_is_one_recording(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tmp_path / "hall"
    frames.mkdir()
    for number in range(12):
        cv2.imwrite(str(frames / f"{number}.png"), np.full((32, 32, 3), 20 * number, np.uint8))
    capsys.readouterr()
    command = ["predict", str(trained_run), str(frames), "--png", str(tmp_path / "drawn.png")]
    assert main([*command, "--rate", "video=10"]) == 0
    found = windows(capsys.readouterr().out)
    assert (found[0]["start"], found[-1]["end"]) == (0, pytest.approx(1.2))
    assert not any("file" in window for window in found)
    assert (tmp_path / "drawn.png").is_file()
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "has no frame rate: give --rate" in said
    assert said.count("\n") == 1


def test_folder_without_errors_exits_0(
    odd_films: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(odd_films / "one_second.mp4", tmp_path / name)
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(tmp_path)]) == 0
    said = capsys.readouterr()
    first, second = ([w for w in windows(said.out) if w.pop("file") == name] for name in ("a.mp4", "b.mp4"))
    assert said.err == ""
    assert len(first) == 4
    assert first == second
