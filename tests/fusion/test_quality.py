"""Measured quality: known noise, blur and absence."""

import pytest
import torch
import torch.nn.functional as F
from modalgate.fusion.quality import measure_quality, noise_deviation
from torch import Tensor


def smooth(*shape: int) -> Tensor:
    """A slope: large contrast, nothing fine."""
    return torch.linspace(-1, 1, shape[-1]).expand(shape) + torch.linspace(-1, 1, shape[-2])[:, None]


@pytest.mark.parametrize("deviation", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("shape", [(2, 1, 4, 3, 32, 32), (2, 1, 1, 64, 64), (2, 1, 2000, 6)])
def test_the_deviation_of_white_noise_is_found(shape: tuple[int, ...], deviation: float) -> None:
    torch.manual_seed(0)
    clean = smooth(*shape) if len(shape) > 4 else torch.linspace(-1, 1, shape[2])[:, None].expand(shape)
    found = noise_deviation(clean + deviation * torch.randn(shape))
    assert found.shape == (2, 1)
    torch.testing.assert_close(found, torch.full_like(found, deviation), rtol=0.05, atol=0.0)


def test_noise_raises_the_first_number_and_blur_lowers_both() -> None:
    torch.manual_seed(0)
    sharp = torch.randn(1, 1, 2, 1, 32, 32)
    blurred = F.avg_pool2d(sharp.flatten(0, 2), 5, stride=1, padding=2).view(sharp.shape)
    here = {"rgb": torch.ones(1, 1, dtype=torch.bool)}
    plain, noisy, soft = (
        measure_quality(("rgb",), {"rgb": stream}, here)[0, 0, 0]
        for stream in (smooth(1, 1, 2, 1, 32, 32), smooth(1, 1, 2, 1, 32, 32) + 0.1 * sharp, blurred)
    )
    assert noisy[0] > plain[0] + 1
    assert (soft < measure_quality(("rgb",), {"rgb": sharp}, here)[0, 0, 0])[:2].all()


def test_what_is_absent_has_no_quality() -> None:
    streams = {"rgb": torch.full((2, 1, 2, 3, 8, 8), torch.nan)}
    present = {"rgb": torch.tensor([[False], [False]]), "audio": torch.tensor([[False], [False]])}
    quality = measure_quality(("rgb", "audio"), streams, present)
    assert quality.shape == (2, 1, 2, 2)
    assert (quality == 0).all()
