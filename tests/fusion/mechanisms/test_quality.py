"""Measured quality: known noise, blur and absence."""

import pytest
import torch
import torch.nn.functional as F
from modalgate.fusion.mechanisms.quality import QualityScore, alike_share, measure_quality, noise_deviation
from torch import Tensor, nn


def smooth(*shape: int) -> Tensor:
    """A slope: large contrast without fine structure."""
    return torch.linspace(-1, 1, shape[-1]).expand(shape) + torch.linspace(-1, 1, shape[-2])[:, None]


def test_noise_deviation_estimates_white_noise() -> None:
    for deviation in (0.05, 0.3, 2.0):
        for shape in ((2, 1, 4, 3, 32, 32), (2, 1, 1, 64, 64), (2, 1, 2000, 6)):
            torch.manual_seed(0)
            clean = smooth(*shape) if len(shape) > 4 else torch.linspace(-1, 1, shape[2])[:, None].expand(shape)
            found = noise_deviation(clean + deviation * torch.randn(shape))
            assert found.shape == (2, 1)
            torch.testing.assert_close(found, torch.full_like(found, deviation), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("shape", [(3, 2, 4, 3, 12, 9), (3, 2, 1, 16, 30)])
def test_picture_noise_equals_immerkaers_mask(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    stream = torch.randn(shape, dtype=torch.float64)
    mask = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    answer = F.conv2d(stream.reshape(-1, 1, *shape[-2:]), mask[None, None]).view(3, 2, -1)
    torch.testing.assert_close(noise_deviation(stream), answer.abs().mean(dim=-1) * (torch.pi / 2) ** 0.5 / 6)


def test_quality_does_not_depend_on_other_clips() -> None:
    for shape in ((3, 2, 4, 3, 12, 9), (3, 2, 1, 16, 30), (3, 2, 40, 6)):
        torch.manual_seed(0)
        stream, here = torch.randn(shape), torch.ones(3, 2, dtype=torch.bool)
        together = measure_quality(("rgb",), {"rgb": stream}, {"rgb": here})
        alone = [measure_quality(("rgb",), {"rgb": stream[i : i + 1]}, {"rgb": here[i : i + 1]}) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(alone))


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


def test_absent_modalities_have_quality_zero() -> None:
    streams = {"rgb": torch.full((2, 1, 2, 3, 8, 8), torch.nan)}
    present = {"rgb": torch.tensor([[False], [False]]), "audio": torch.tensor([[False], [False]])}
    quality = measure_quality(("rgb", "audio"), streams, present)
    assert quality.shape == (2, 1, 2, 3)
    assert (quality == 0).all()


@pytest.mark.parametrize("shape", [(2, 3, 4, 3, 8, 8), (2, 3, 1, 16, 12), (2, 3, 30, 6)])
def test_the_share_of_neighbours_that_are_alike_equals_a_loop(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    stream = torch.randn(shape)
    stream[0, 0] = (stream[0, 0] / 2).round() * 2
    stream[1, 2] = 0.7
    content = stream.flatten(2).std(dim=-1)
    found = alike_share(stream, content)
    for clip in range(2):
        for segment in range(3):
            series = stream[clip, segment].T if len(shape) == 4 else stream[clip, segment].reshape(-1, shape[-1])
            alike = [
                abs(float(line[i + 1] - line[i])) <= 0.01 * float(content[clip, segment])
                for line in series
                for i in range(len(line) - 1)
            ]
            assert float(found[clip, segment]) == pytest.approx(sum(alike) / len(alike), abs=1e-6)
    assert float(found[0, 1]) < 0.05 < 0.3 < float(found[0, 0])
    assert float(found[1, 2]) == 1


def some_quality(batch: int) -> tuple[Tensor, Tensor]:
    """Quality (5, 2, 3, 2) of modalities of very different scale, NaN where absent, and the mask."""
    generator = torch.Generator().manual_seed(batch)
    quality = torch.randn(5, 2, 3, 2, generator=generator, dtype=torch.float64)
    quality = quality * torch.tensor([0.1, 1.0, 10.0])[:, None] + torch.tensor([-5.0, 0.0, 40.0])[:, None]
    mask = torch.rand(5, 2, 3, generator=generator) < 0.7
    return torch.where(mask[..., None], quality, torch.nan), mask


def test_the_score_equals_a_loop_over_rows_and_batches() -> None:
    torch.manual_seed(0)
    score = QualityScore(3, 2, hidden=4).double()
    for parameter in score.parameters():
        nn.init.normal_(parameter)
    first, last = score.network[0], score.network[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    batches = [some_quality(number) for number in range(3)]
    means, squares = [], []
    for batch, (quality, mask) in enumerate(batches):
        found = score(quality, mask)
        means.append(torch.stack([quality[..., m, :][mask[..., m]].mean(dim=0) for m in range(3)]))
        squares.append(torch.stack([quality[..., m, :][mask[..., m]].square().mean(dim=0) for m in range(3)]))
        mean, square = sum(means) / (batch + 1), sum(squares) / (batch + 1)
        for place in torch.cartesian_prod(torch.arange(5), torch.arange(2), torch.arange(3)):
            clip, segment, m = (int(number) for number in place)
            usual = (square[m] - mean[m] ** 2).sqrt()  # pyright: ignore[reportIndexIssue]
            unusual = (quality[clip, segment, m] - mean[m]) / usual  # pyright: ignore[reportIndexIssue]
            hidden = torch.clamp(first.weight @ unusual + first.bias, min=0)
            expected = last.weight[0] @ hidden if mask[clip, segment, m] else torch.zeros(())
            torch.testing.assert_close(found[clip, segment, m], expected, check_dtype=False)


def test_evaluation_keeps_running_statistics_and_rows_are_independent() -> None:
    torch.manual_seed(0)
    score = QualityScore(3, 2).double()
    nn.init.normal_(score.network[-1].weight)  # pyright: ignore[reportArgumentType]
    for batch in range(3):
        score(*some_quality(batch))
    score.eval()
    held = {name: tensor.clone() for name, tensor in score.state_dict().items()}
    quality, mask = some_quality(3)
    whole = score(quality, mask)
    torch.testing.assert_close(torch.cat([score(quality[i : i + 1], mask[i : i + 1]) for i in range(5)]), whole)
    assert all(torch.equal(tensor, held[name]) for name, tensor in score.state_dict().items())
    # A modality of large numbers has no larger say than one of small ones.
    spread = torch.stack([whole[..., m][mask[..., m]].std() for m in range(3)])
    assert spread.max() < 4 * spread.min()


def test_score_starts_at_zero_and_rejects_other_shapes() -> None:
    quality, mask = some_quality(0)
    score = QualityScore(3, 2).double()
    assert (score(quality, mask) == 0).all()
    with pytest.raises(ValueError, match="quality has shape"):
        score(quality[..., :1], mask)
