"""`predict` on a camera over RTSP, by the command line: its pictures and sound, and the way back when it was lost."""

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.shards.clips.piece import Window

from .rtsp_camera import RATE, RtspCamera

LEVEL, SECONDS = 160, 2


def camera(**settings: Any) -> RtspCamera:
    """Noise about one level of brightness, so large that a picture takes several packets, and a tone."""
    noise = np.random.default_rng(0).integers(LEVEL - 60, LEVEL + 60, (20 * SECONDS, 96, 128, 3)).astype(np.uint8)
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(RATE * SECONDS) / RATE)
    return RtspCamera(noise, tone.astype(np.float32), 20, **settings)


def of_kind(kind: str, text: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def test_camera_stream_gives_video_and_sound(
    trained_run: Path, seen: list[Window], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with camera(login="user:secret", seconds=2.5) as watched:
        assert main(["predict", str(trained_run), watched.url, "--retries", "0"]) == 0
    said = capsys.readouterr()
    found = of_kind("window", said.out)
    assert len(found) >= 8
    assert np.diff([window["start"] for window in found]) == pytest.approx(0.2)
    for window in found:
        assert sum(window["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert window["present"] == ["rgb", "audio"]
        assert abs((datetime.fromisoformat(window["time"]) - datetime.now(UTC)).total_seconds()) < 60
    assert said.err == f"{watched.url.replace('user:secret', '***')}: connection lost: it ended\n"
    for window in seen:
        assert window.streams["rgb"].mean() == pytest.approx(LEVEL, abs=4)
        heard = np.abs(np.fft.rfft(window.streams["audio"]))
        assert heard.argmax() / 0.4 == pytest.approx(500, abs=3)
        assert window.streams["audio"].std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.slow
def test_lost_camera_is_reconnected(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It returns on the same port. After a final failure predict gives up."""
    first, out = camera(), tmp_path / "lines.jsonl"

    def written(after: str = "") -> int:
        text = out.read_text() if out.exists() else ""
        return (text.partition(after)[2] if after else text).count('"window"')

    def live_twice() -> None:
        # The second life has nothing to encode: it must be there within the second before predict looks for it.
        with first:
            while written() < 6:
                time.sleep(0.02)
        with RtspCamera(first.pictures, first.sound, first.rate, port=first.server_address[1]):
            while written(after='"gap"') < 6:
                time.sleep(0.02)

    threading.Thread(target=live_twice, daemon=True).start()
    capsys.readouterr()
    assert main(["predict", str(trained_run), first.url, "--retries", "1", "--out", str(out)]) == 3
    said = capsys.readouterr()
    lost, again, lost_again, given_up = said.err.splitlines()
    assert lost == lost_again
    assert lost.startswith(f"{first.url}: connection lost: ")
    assert lost.endswith("; attempt 1 of 1 in 1 s")
    assert again == f"{first.url}: reconnected"
    (gap,) = of_kind("gap", out.read_text())
    found = of_kind("window", out.read_text())
    before = [window for window in found if window["end"] <= gap["start"]]
    after = [window for window in found if window["start"] >= gap["end"]]
    assert len(before) + len(after) == len(found)
    assert min(len(before), len(after)) >= 5
    assert gap["reason"] in lost
    assert gap["end"] - gap["start"] > 0.5
    assert given_up.startswith(
        f"error: '{first.url}', beyond {found[-1]['end']:g} s, cannot be read: gave up after 1 att"
    )


def test_ctrl_c_writes_all_results_so_far(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn, figures = (tmp_path / name for name in ("lines.jsonl", "drawn.png", "figures.json"))

    def interrupt() -> None:
        while not out.exists() or out.read_text().count("window") < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    capsys.readouterr()
    with camera() as watched:
        command = ["predict", str(trained_run), watched.url, "--out", str(out), "--png", str(drawn)]
        assert main([*command, "--json", str(figures)]) == 130
    said = capsys.readouterr()
    assert said.err == "interrupted\n"
    (entry,) = json.loads(figures.read_text())["recordings"]
    assert entry["windows"] == len(of_kind("window", out.read_text())) >= 3
    assert "Lines in " in said.out
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_unreachable_camera_is_reported(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"/hall": "/stairs", "user:secret@": "", "user:secret": "user:guessed"}
    with camera(login="user:secret") as watched:
        for (right, other), says in zip(wrong.items(), ("404 Not Found", "401 Unauth", "401 Unauth"), strict=True):
            assert main(["predict", str(trained_run), watched.url.replace(right, other)]) == 3
            said = capsys.readouterr().err
            assert says in said
            assert said.count("\n") == 1
            assert "secret" not in said
    assert main(["predict", str(trained_run), watched.url]) == 3
    assert "Connection refused" in capsys.readouterr().err
