"""Figures: their content, escaped labels, and the colours of the page."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from modalgate.tasks.records import Confusion, Curves, Example, Examples, Gates, LevelCurves, Timeline
from modalgate.tasks.report.charts import draw, draw_series, draw_timeline
from modalgate.tasks.report.style import MODALITY_COLOURS, Drawing
from PIL import Image

HOSTILE = '<b>&"$x_1$'


def _texts(drawing: Drawing) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(drawing.svg).iter("text")]


def _line_of(drawing: Drawing, colour: str) -> np.ndarray:
    """Points (n, 2) of the longest path in a colour, with y upwards."""
    paths = [
        node.attrib["d"]
        for node in ElementTree.fromstring(drawing.svg).iter("path")
        if {f"stroke: {colour}", "fill: none"} <= set(node.attrib.get("style", "").split("; "))
    ]
    numbers = re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", max(paths, key=len))
    return np.array(numbers, float) * (1, -1)


def test_a_series_is_drawn_to_scale() -> None:
    steps, values = [0.0, 10.0, 20.0, 40.0], [0.0, 0.5, 0.5, 1.0]
    drawing = draw_series("gates", {"rgb": (steps, values), "audio": (steps, values[::-1])}, share=True)
    x, y = _line_of(drawing, MODALITY_COLOURS["rgb"]).T
    assert (x - x[0]) / (x[-1] - x[0]) == pytest.approx([0, 0.25, 0.5, 1], abs=1e-3)
    assert (y - y[0]) / (y[-1] - y[0]) == pytest.approx([0, 0.5, 0.5, 1], abs=1e-3)
    assert {"gates", "step", "rgb", "audio"} <= set(_texts(drawing))
    assert drawing.alt == "gates over training steps: rgb ends at 1, audio ends at 0"


def test_a_confusion_shows_its_counts_and_accuracy() -> None:
    (drawing,) = draw(Confusion("Confusion", ["calm", HOSTILE], [[31, 4], [0, 15]]))
    texts = _texts(drawing)
    assert [text for text in texts if text.isdigit()] == ["31", "4", "15"]
    assert texts.count(HOSTILE) == 2
    assert drawing.alt == "Confusion: 92.0% of 50 clips on the diagonal"


def test_gates_show_weights_and_leave_unknown_ones_empty() -> None:
    weights: list[list[float]] = [[0.61, 0.39], [None, None]]  # pyright: ignore[reportAssignmentType]
    (drawing,) = draw(Gates("Gates", ["rgb", "audio"], ["calm", "never"], weights))
    assert {"0.61", "0.39", "rgb", "audio", "calm", "never"} <= set(_texts(drawing))
    assert not any("nan" in text for text in _texts(drawing))
    assert "calm most on rgb (0.61)" in drawing.alt


def test_curves_have_their_labels_and_distinct_colours() -> None:
    points = [(share, share**0.5) for share in np.linspace(0, 1, 2000).tolist()]
    (drawing,) = draw(Curves("ROC", "false alarms", "recall", {"fused": points, "rgb": points}, diagonal=True))
    assert {"ROC", "false alarms", "recall", "fused", "rgb", "chance"} <= set(_texts(drawing))
    colours = set(re.findall(r"stroke: (#[0-9a-f]{6})", drawing.svg))
    assert len(colours) == 2
    assert MODALITY_COLOURS["rgb"] in colours
    assert len(_line_of(drawing, MODALITY_COLOURS["rgb"])) <= 500


def test_levels_are_evenly_spaced_above_the_gate_weights() -> None:
    (drawing,) = draw(
        LevelCurves(
            "audio: noise",
            "SNR dB",
            "accuracy",
            ["inf", "20", "-10"],
            {"fused": [1.0, 0.75, 0.0], "best single": [0.5, 0.5, float("nan")]},
            {"fused": [(0.9, 1.0), (0.6, 0.9), (float("nan"), float("nan"))]},
            {"rgb": [0.2, 0.4, 1.0], "audio": [0.8, 0.6, 0.0]},
        )
    )
    texts = _texts(drawing)
    assert {"audio: noise", "SNR dB", "accuracy", "gate weight", "fused", "best single", "rgb", "audio"} <= set(texts)
    assert [text for text in texts if text in ("inf", "20")] == ["inf", "20"]
    x, y = _line_of(drawing, MODALITY_COLOURS["rgb"]).T
    assert (x - x[0]) / (x[-1] - x[0]) == pytest.approx([0, 0.5, 1], abs=1e-3)
    assert (y - y[0]) / (y[-1] - y[0]) == pytest.approx([0, 0.25, 1], abs=1e-3)
    assert drawing.alt == "audio: noise, accuracy over SNR dB: fused from 1.00 to 0.00"


def test_examples_have_no_drawing() -> None:
    assert draw(Examples("Examples", [Example("a", "right", "calm", "calm", 0.9, {"rgb": 1.0}, "a.png")])) == []


def test_a_timeline_of_many_classes_shows_the_highest() -> None:
    times = [0.5 * number for number in range(8)]
    scores = {f"class-{number}": [number / 20] * 8 for number in range(10)}
    upper, lower = draw(Timeline("clip", times, scores, {"rgb": [0.5] * 8, "audio": [0.5] * 8}))
    shown = {text for text in _texts(upper) if text.startswith("class-")}
    assert shown == {f"class-{number}" for number in range(4, 10)}
    assert "highest 6 of 10" in upper.alt
    assert {"rgb", "audio", "seconds"} <= set(_texts(lower))


def test_a_timeline_names_its_marks_over_scores_and_gates() -> None:
    marks = {"camera broken": (1.0, 2.0)}
    drawings = draw(Timeline("clip", [0.0, 3.0], {"calm": [0.5, 0.5]}, {"rgb": [0.5, 0.5]}, marks))
    assert len(drawings) == 2
    for drawing in drawings:
        assert "camera broken" in _texts(drawing)
        assert drawing.alt.endswith("camera broken from 1 to 2 s")


def test_drawings_follow_the_page_and_load_nothing() -> None:
    figures = [
        Confusion(HOSTILE, [HOSTILE], [[1]]),
        Curves(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [(0.0, 1.0)]}),
        Gates(HOSTILE, [HOSTILE], [HOSTILE], [[1.0]]),
        Timeline(HOSTILE, [0.0], {HOSTILE: [1.0]}, {HOSTILE: [1.0]}, {HOSTILE: (0.0, 1.0)}),
        LevelCurves(
            HOSTILE, HOSTILE, HOSTILE, [HOSTILE], {HOSTILE: [1.0]}, {HOSTILE: [(0.0, 1.0)]}, {HOSTILE: [1.0]}
        ),
    ]
    drawings = [drawing for figure in figures for drawing in draw(figure)]
    drawings.append(draw_series(HOSTILE, {HOSTILE: ([1.0], [float("nan")])}))
    for drawing in drawings:
        root = ElementTree.fromstring(drawing.svg)
        assert root.attrib["aria-label"] == drawing.alt
        assert root.attrib["role"] == "img"
        assert "width" not in root.attrib
        assert HOSTILE in _texts(drawing)
        assert "<b>" not in drawing.svg
        assert "currentColor" in drawing.svg
        assert not re.search(r"https?:|#010203|#040506", drawing.svg)
        assert all(node.attrib["href"].startswith("data:") for node in root.iter("image"))


def test_a_timeline_is_written_as_a_picture(tmp_path: Path) -> None:
    target = tmp_path / "timeline.png"
    draw_timeline(Timeline("clip", [0.0, 1.0], {"calm": [0.2, 0.8]}, {"rgb": [1.0, 1.0]}), target)
    with Image.open(target) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
