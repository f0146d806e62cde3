"""Coarse contents of segments, against slicing by hand."""

import pytest
import torch
from modalgate.ssl.views.segment_summary import summarise, summary_size


@pytest.mark.parametrize(
    ("name", "shape"), [("rgb", (2, 3, 4, 3, 16, 16)), ("audio", (2, 3, 1, 64, 40)), ("inertial", (2, 3, 20, 6))]
)
def test_sizes_are_as_stated_and_rows_are_standardised(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    found = summarise(torch.randn(shape) * 5 + 2)
    assert found.shape == (2, 3, summary_size(name))
    torch.testing.assert_close(found.mean(dim=-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=-1, correction=0), torch.ones(2, 3))


def test_cells_are_means_of_the_parts() -> None:
    torch.manual_seed(0)
    video = torch.randn(1, 1, 4, 1, 8, 8)
    cells = [
        video[0, 0, t : t + 2, 0, y : y + 2, x : x + 2].mean()
        for t in (0, 2)
        for y in (0, 2, 4, 6)
        for x in (0, 2, 4, 6)
    ]
    expected = torch.stack(cells)
    expected = (expected - expected.mean()) / expected.std(correction=0)
    torch.testing.assert_close(summarise(video)[0, 0], expected)
