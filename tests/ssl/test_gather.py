"""Gathering over two real gloo processes, and the identity on one."""

import pytest
import torch
from modalgate.ssl.gather import gather, gather_with_gradient, rank, sum_over_ranks, world_size
from torch import Tensor

Ranks, Inputs = list[dict[str, Tensor]], dict[str, Tensor]


def test_rows_arrive_in_rank_order(two_ranks: Ranks, rank_inputs: Inputs) -> None:
    for number, found in enumerate(two_ranks):
        assert found["rank"].tolist() == [number, 2]
        assert torch.equal(found["joined"], rank_inputs["rows"].flatten(0, 1))
        assert torch.equal(found["mask"], rank_inputs["valid.unequal"].flatten())
        assert found["sum"].tolist() == [11]


def test_the_gradient_sums_every_ranks_share(two_ranks: Ranks, rank_inputs: Inputs) -> None:
    expected = rank_inputs["factors"].sum(dim=0).unflatten(0, (2, -1))
    for number, found in enumerate(two_ranks):
        torch.testing.assert_close(found["gradient"], expected[number])


def test_one_process_is_the_identity() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_with_gradient(rows) is rows
    assert gather(rows) is rows
    assert int(sum_over_ranks(torch.tensor(4))) == 4
    assert (rank(), world_size()) == (0, 1)


@pytest.mark.parametrize("fusion", ["softmax", "gated_concat"])
@pytest.mark.parametrize("case", ["whole", "lopsided", "empty"])
def test_the_gate_loss_over_ranks_is_that_of_the_joined_batch(
    fusion: str, case: str, two_ranks: Ranks, one_process: dict[str, Tensor]
) -> None:
    whole = one_process[f"{fusion}.{case}.gate"]
    # Only the whole clip has rows with all modalities, so the hidden view does not halve the loss.
    torch.testing.assert_close(whole, one_process[f"{fusion}.{case}.local"])
    for found in two_ranks:
        torch.testing.assert_close(found[f"{fusion}.{case}.gate"], whole)
        torch.testing.assert_close(
            found[f"{fusion}.{case}.gate.gradient"], one_process[f"{fusion}.{case}.gate.gradient"]
        )
    mean = torch.stack([found[f"{fusion}.{case}.local"] for found in two_ranks]).mean()
    assert (whole == 0) == (case == "empty")
    assert case == "empty" or not torch.isclose(mean, whole), "the mean over ranks is another loss"
