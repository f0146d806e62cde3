"""Shared style: thinning, colours and short names."""

import numpy as np
import pytest
from modalgate.tasks.report.style import (
    MODALITY_COLOURS,
    PALETTE,
    as_pixels,
    colours_of,
    new_panel,
    page_style,
    plot_lines,
    shorten,
    thin,
)


def test_thinned_curves_keep_their_mean_and_ends() -> None:
    values = np.arange(100_000.0)
    thinned = thin(values)
    assert len(thinned) == 500
    assert thinned == pytest.approx(np.arange(500) * 200 + 99.5)
    assert (thin(np.arange(500.0)) == np.arange(500)).all()
    assert np.array_equal(thin(np.array([np.nan, 1, 3, np.nan, np.nan, np.nan]), 3), [1, 3, np.nan], equal_nan=True)


def test_modalities_have_fixed_colours_and_others_take_the_rest() -> None:
    first, second, third = colours_of(["fused", "audio", "rgb"])
    assert (second, third) == (MODALITY_COLOURS["audio"], MODALITY_COLOURS["rgb"])
    assert first in set(PALETTE) - {second, third}
    assert len(set(colours_of([f"class-{number}" for number in range(len(PALETTE))]))) == len(PALETTE)


def test_long_names_are_cut_and_lines_joined() -> None:
    assert shorten("a\nlabel") == "a label"
    assert shorten("x" * 30) == "x" * 21 + "…"
    assert shorten("x" * 22) == "x" * 22


def test_pixels_are_dark_lines_on_white() -> None:
    with page_style():
        canvas, axes = new_panel("losses", (3.0, 2.0))
        plot_lines(axes, {"rgb": ([1, 2, 3], [0.0, 0.5, 0.2])}, share=True)
    pixels = as_pixels(canvas, 100)
    assert (pixels.shape, pixels.dtype) == ((200, 300, 3), np.uint8)
    assert (pixels == 255).all(axis=2).mean() > 0.8
    curve = np.array([int(MODALITY_COLOURS["rgb"][place : place + 2], 16) for place in (1, 3, 5)])
    assert (pixels == curve).all(axis=2).sum() > 50
