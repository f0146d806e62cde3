"""Alarms by the command line, of a film that is flat and striped by turns: their lines, table and options."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion import load_encoder
from modalgate.fusion.bundle.bundle import load_bundle, save_bundle
from modalgate.launch.cli import main
from modalgate.shards.media.container_io import write_video

# Each second of the film is flat or striped.
STRIPED = (0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0)
WINDOW, HOP = 0.4, 0.2


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    stripes = np.where(np.arange(32) // 4 % 2, 230, 20)[:, None, None]
    pictures = [np.broadcast_to(stripes if striped else 40, (32, 32, 3)) for striped in STRIPED for _ in range(10)]
    write_video(tmp_path / "changing.mp4", np.stack(pictures).astype(np.uint8), 10)
    return tmp_path / "changing.mp4"


@pytest.fixture
def striped(trained_run: Path, changing: Path) -> tuple[list[str], float]:
    """Alarm options for stripes, and a threshold halfway.

    The head is planted: the log odds of `fight` are 8 for the features of stripes and -8 for those of flat pictures.
    """
    bundle = load_bundle(trained_run / "encoder")
    features = torch.from_numpy(load_encoder(trained_run / "encoder").embed(changing, hop=HOP).features)
    flat, stripes = (
        features[round(begin / HOP) : round(end / HOP) - 1].mean(dim=0) for begin, end in ((0, 3), (3, 6))
    )
    weight = 8 * (stripes - flat) / (stripes - flat).square().sum()
    bias = weight @ (stripes + flat) / 2
    layer: Any = bundle.model.head[-1]  # pyright: ignore
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weight, weight]))
        layer.bias.copy_(torch.stack([bias, -bias]))
    save_bundle(bundle, trained_run / "encoder")
    return ["predict", str(trained_run), str(changing), "--alarm", "fight"], 0.5


def alarms(text: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == "alarm"]


def spans(told: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Starts and ends of the alarms in the lines."""
    assert [line["state"] for line in told] == ["on", "off"] * (len(told) // 2)
    for begun, ended in zip(told[::2], told[1::2], strict=True):
        assert begun["on"] == ended["on"]
        assert begun["off"] is None
        assert ended["on"] <= ended["peak_at"] <= ended["off"]
    return [(line["on"], line["off"]) for line in told[1::2]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--smooth", "0"], [(3, 6), (7, 10)]),
        # The flat second is too short to end it, and three striped ones are to begin it.
        (["--smooth", "0", "--min-off", "1.5"], [(3, 10)]),
        (["--smooth", "0", "--min-on", "4"], []),
        # The mean of two seconds is halfway a second later. In the flat second it falls to halfway.
        (["--smooth", "2", "--off", "0.4"], [(4, 11)]),
        # Half of the way up is 0.7 of the time constant; the flat second comes down by as much.
        (["--smooth", "1.4", "--smoothing", "exponential"], [(4, 6.8), (7.2, 10.9)]),
    ],
)
def test_alarms_start_and_end_at_the_thresholds(
    options: list[str], expected: list[tuple[float, float]], striped: tuple[list[str], float], capsys: Any
) -> None:
    command, score = striped
    assert main([*command, "--on", f"{score}", "--off", f"{score}", *options]) == 0
    told = alarms(capsys.readouterr().out)
    assert {line["class"] for line in told} <= {command[-1]}
    found = spans(told)
    assert found == [(pytest.approx(on, abs=WINDOW), pytest.approx(off, abs=WINDOW)) for on, off in expected]
    assert all(line["peak"] >= score - 1e-4 for line in told)


def test_between_two_thresholds_an_alarm_stays_on(
    striped: tuple[list[str], float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of the film ends it."""
    command, score = striped
    assert main([*command, "--smooth", "0", "--on", f"{score}", "--off", "0"]) == 0
    assert spans(alarms(capsys.readouterr().out)) == [(pytest.approx(3, abs=WINDOW), pytest.approx(14))]


def test_table_and_json_hold_the_same_alarms(
    striped: tuple[list[str], float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, score = striped
    out, figures = tmp_path / "lines.jsonl", tmp_path / "figures.json"
    command += ["--smooth", "0", "--on", f"{score}", "--off", f"{score}", "--png", str(tmp_path / "drawn.png")]
    assert main([*command, "--out", str(out), "--json", str(figures)]) == 0
    said = capsys.readouterr().out
    told = alarms(out.read_text())[1::2]
    assert len(told) == 2
    (recording,) = json.loads(figures.read_text())["recordings"]
    assert recording["alarm_count"] == 2
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert recording["windows"] == sum(line["kind"] == "window" for line in lines)
    assert (lines[-1]["kind"], lines[-1]["probabilities"]) == ("clip", recording["means"])
    assert lines[-1]["peaks"] == recording["peaks"]
    for line, entry in zip(told, recording["alarms"], strict=True):
        assert entry == pytest.approx({key: line[key] for key in ("on", "off", "peak", "peak_at")}, abs=1e-4)
    rows = [line.split("│")[1:-1] for line in said.partition("Alarms")[2].splitlines() if "changing" in line]
    seen = [[float(cell) for cell in row[1:]] for row in rows]
    expected = [[line["on"], line["off"], line["off"] - line["on"], line["peak"], line["peak_at"]] for line in told]
    assert seen == [pytest.approx(row, abs=1e-3) for row in expected]
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--alarm", "figth"], "did you mean 'fight'"),
        (["--on", "0.4", "--off", "0.5"], "--on 0.4 and --off 0.5: "),
        (["--on", "1.5"], "--on 1.5"),
        (["--smoothing", "mode"], "smoothing"),
        (["--min-off", "-1"], "--min-off"),
    ],
)
def test_invalid_alarm_is_rejected_in_one_line(
    options: list[str], says: str, trained_run: Path, changing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(changing), *options]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.count("\n") == 1
