"""Corruptions grow with their severity and are nothing at zero."""

import torch
from modalgate.ssl.views.corruption import CORRUPTIONS, TRAINED, corrupt_streams
from torch import Tensor

STREAMS = {"video": (24, 3, 16, 16), "spectrogram": (1, 32, 40), "signal": (60, 6)}


def smooth(shape: tuple[int, ...]) -> Tensor:
    """A stream of deviation one with structure."""
    torch.manual_seed(0)
    waves = torch.linspace(0, 6, shape[-1] if len(shape) > 2 else shape[0]).sin()
    stream = waves.expand(shape).clone() if len(shape) > 2 else waves[:, None].expand(shape).clone()
    stream = stream + 0.3 * torch.randn(shape)
    return (stream - stream.mean()) / stream.std()


def test_more_severe_is_further_from_the_clean_stream() -> None:
    for kind in STREAMS:
        for name in CORRUPTIONS:
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


def test_the_promised_share_of_segments_is_corrupted() -> None:
    for share in (0.5, 1.0):
        for modalities in (2, 3, 4):
            rows = 20000
            present = {f"m{number}": torch.ones(rows, 1, dtype=torch.bool) for number in range(modalities)}
            # A third of the segments lacks a modality. With two modalities those have no clean one to prefer.
            present["m0"][::3] = False
            _, kept, severity = corrupt_streams({}, present, torch.Generator().manual_seed(0), share=share)
            mask = torch.stack([part[:, 0] for part in present.values()], dim=-1)
            corrupted = severity[:, 0] > 0
            several = mask.sum(dim=-1) > 1
            assert abs(float(corrupted.any(dim=-1)[several].float().mean()) - share) < 4 * 0.5 / rows**0.5
            assert not corrupted[~several].any()
            assert not (corrupted & ~mask).any()
            assert (mask & ~corrupted).any(dim=-1).all(), "a clean modality is left"
            assert (torch.stack([part[:, 0] for part in kept.values()], dim=-1) | corrupted | ~mask).all()
            # Subsets are equally likely, so each modality of a segment is corrupted equally often.
            whole = corrupted[mask.all(dim=-1)]
            codes = (whole.to(torch.int64) * 2 ** torch.arange(modalities)).sum(dim=-1)
            counts = torch.bincount(codes, minlength=2**modalities) / len(whole)
            expected = torch.full((2**modalities,), share / (2**modalities - 2))
            expected[0], expected[-1] = 1 - share, 0
            assert (counts - expected).abs().max() < 5 * 0.5 / len(whole) ** 0.5
