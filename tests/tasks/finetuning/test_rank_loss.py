"""The ranking loss against a loop."""

import pytest
import torch
from modalgate.tasks.finetuning.rank_loss import LossHistory

KEYS = ["a", "b", "c", "d"]


def test_the_loss_equals_a_loop_over_neighbours() -> None:
    torch.manual_seed(0)
    history = LossHistory(KEYS, ("rgb",))
    seen: dict[str, list[float]] = {key: [] for key in KEYS}
    for batch in (["a", "c"], ["d", "a", "b"], ["b", "c", "d", "a"]):
        losses, confidence = torch.rand(len(batch)), torch.randn(len(batch), requires_grad=True)
        present = torch.tensor([key != "d" for key in batch])
        loss = history(batch, {"rgb": confidence}, {"rgb": losses}, {"rgb": present})
        for key, value, there in zip(batch, losses.tolist(), present.tolist(), strict=True):
            seen[key] += [value] if there else []
        means = {key: sum(values) / len(values) for key, values in seen.items() if values}
        low, high = min(means.values()), max(means.values())
        kappa = [1 - (means.get(key, 0.0) - low) / max(high - low, 1e-12) for key in batch]
        total, count = torch.zeros(()), 0
        for i in range(len(batch)):
            j = (i + 1) % len(batch)
            if batch[i] == "d" or batch[j] == "d":
                continue
            sign = (kappa[i] > kappa[j]) - (kappa[i] < kappa[j])
            total = total + torch.relu(-sign * (confidence[i] - confidence[j]) + abs(kappa[i] - kappa[j]))
            count += 1
        torch.testing.assert_close(loss, total / max(count, 1))
    loss.backward()
    assert confidence.grad is not None
    assert confidence.grad[2] == 0


def test_the_history_is_in_the_checkpoint_and_unknown_keys_raise() -> None:
    history = LossHistory(KEYS, ("rgb",))
    ones = {"rgb": torch.ones(2)}
    history(["a", "b"], ones, {"rgb": torch.tensor([1.0, 3.0])}, {"rgb": torch.ones(2, dtype=torch.bool)})
    copy = LossHistory(KEYS, ("rgb",))
    copy.load_state_dict(history.state_dict())
    assert copy.total[:, 0].tolist() == [1, 3, 0, 0]
    with pytest.raises(KeyError, match="stranger"):
        history(["stranger"], ones, ones, ones)
