"""Corruptions grow with their severity and are nothing at zero."""

import pytest
import torch
from modalgate.ssl.views.corruption import CORRUPTIONS, TRAINED
from torch import Tensor

STREAMS = {"video": (24, 3, 16, 16), "spectrogram": (1, 32, 40), "signal": (60, 6)}


def smooth(shape: tuple[int, ...]) -> Tensor:
    """A stream of deviation one with structure."""
    torch.manual_seed(0)
    waves = torch.linspace(0, 6, shape[-1] if len(shape) > 2 else shape[0]).sin()
    stream = waves.expand(shape).clone() if len(shape) > 2 else waves[:, None].expand(shape).clone()
    stream = stream + 0.3 * torch.randn(shape)
    return (stream - stream.mean()) / stream.std()


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severe_is_further_from_the_clean_stream(name: str, kind: str) -> None:
    stream = smooth(STREAMS[kind])
    distances = []
    for severity in (0.05, 0.4, 0.95):
        altered = CORRUPTIONS[name](stream, severity, torch.Generator().manual_seed(0))
        assert altered.shape == stream.shape
        assert torch.isfinite(altered).all()
        distances.append(float((altered - stream).square().mean()))
    assert distances[0] < distances[1] < distances[2]
    assert distances[0] < 0.1


def test_blur_is_not_used_in_training() -> None:
    assert set(CORRUPTIONS) - set(TRAINED) == {"blur"}
