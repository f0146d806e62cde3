"""NT-Xent against the paper's equation in plain loops, and two views of one segment."""

import math
from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Backbone, Encoded
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.pretext.simclr import SimClr, augment_twice, nt_xent
from torch import Tensor

TEMPERATURE = 0.3


def naive(rows: list[Tensor], mates: list[int]) -> Tensor:
    """Equation 1 of Chen et al. 2020, averaged over all rows, term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(rows):
        others = [torch.exp(torch.cosine_similarity(row, rows[k], dim=0) / TEMPERATURE) for k in range(len(rows))]
        bottom = sum((others[k] for k in range(len(rows)) if k != i), torch.zeros((), dtype=torch.float64))
        total = total - torch.log(others[mates[i]] / bottom)
    return total / len(rows)


def test_the_loss_is_the_papers_equation(
    leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(1)
    task = SimClr(("rgb", "audio"), 8, temperature=TEMPERATURE).double()
    encoded = {"plain": leaves(2, 3, ("rgb", "audio")), "augmented": leaves(5, 2, ("rgb", "audio"), {("audio", 3)})}
    found = task(encoded)
    losses = []
    for name, clips in (("rgb", [0, 1, 2, 3, 4]), ("audio", [0, 1, 2, 4])):
        projected = task.heads[name](encoded["augmented"].features[name])
        rows = [projected[clip, view] for view in range(2) for clip in clips]
        losses.append(naive(rows, [(i + len(clips)) % len(rows) for i in range(len(rows))]))
    assert_equation(found["loss"], torch.stack(losses).mean(), task, encoded)
    assert float(found["chance"]) == pytest.approx((1 / 9 + 1 / 7) / 2)


def test_equal_views_of_orthogonal_clips_have_the_loss_in_closed_form() -> None:
    rows = torch.eye(4, dtype=torch.float64)
    loss, accuracy = nt_xent(rows, rows, 0.5)
    # One mate at a cosine of 1, six others at 0.
    assert float(loss) == pytest.approx(math.log(math.exp(2) + 6) - 2)
    assert float(accuracy) == 1
    assert float(nt_xent(rows, rows.roll(1, 0), 0.5)[1]) == 0


def test_fewer_than_two_clips_have_zero_loss_with_gradient(
    leaves: Callable[..., Encoded], assert_waits: Callable[..., None]
) -> None:
    task = SimClr(("rgb",), 8).double()
    silent = {("rgb", clip) for clip in range(1, 4)}
    assert_waits(task({"plain": leaves(4, 1, ("rgb",)), "augmented": leaves(4, 2, ("rgb",), silent)}), task)


def test_the_two_rows_are_one_segment_and_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    streams = {
        "rgb": torch.rand(6, 3, 4, 3, 16, 16, generator=generator),
        "flow": torch.rand(6, 3, 4, 2, 16, 16, generator=generator),
        "audio": torch.rand(6, 3, 1, 12, 20, generator=generator),
        "inertial": torch.rand(6, 3, 10, 6, generator=generator),
    }
    # Every segment has a distinct level, far from the others.
    levels = torch.arange(3.0) * 100
    streams = {name: s + levels.view(1, 3, *[1] * (s.ndim - 2)) for name, s in streams.items() if name != "inertial"}
    present = {name: torch.ones(6, 3, dtype=torch.bool) for name in streams}
    present["audio"][2, :] = False
    before = {name: stream.clone() for name, stream in streams.items()}
    view = augment_twice(streams, present, generator)
    assert torch.equal(view.segments[:, 0], view.segments[:, 1])
    assert view.present["audio"][:, 0].tolist() == [clip != 2 for clip in range(6)]
    for name, changed in view.streams.items():
        assert torch.equal(streams[name], before[name]), "the plain view is not changed"
        assert changed.shape == (6, 2, *streams[name].shape[2:])
        assert not any(torch.equal(first, second) for first, second in changed)
    level = view.streams["audio"].median(dim=-1).values.mean(dim=(-1, -2))
    assert torch.equal((level / 100).round().long(), view.segments)


def test_it_trains_a_single_stream(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: Callable[..., Batch]
) -> None:
    objective = PretextObjective(tiny_backbone(("rgb",)), tiny_clip, 2, {"simclr": (1.0, {})}).train()
    batch = tiny_batch(8, 2, ("rgb",))
    # Eight colours, which only the rows without colour lose.
    corners = torch.cartesian_prod(*[torch.tensor([0, 200], dtype=torch.uint8)] * 3)
    batch.streams["rgb"] = corners.view(8, 1, 1, 3, 1, 1).expand_as(batch.streams["rgb"]).contiguous()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    losses = []
    for step in range(60):
        batch.seed = step
        loss = objective(batch)["simclr/loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
