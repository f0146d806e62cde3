"""Running means against the plain ones."""

import pytest
import torch
from modalgate.launch.runs.means import Means


def test_each_name_is_averaged_over_its_batches() -> None:
    means = Means()
    means.add({"a": torch.tensor(1.0, requires_grad=True), "b": torch.tensor(4, dtype=torch.bfloat16)})
    means.add({"a": torch.tensor(2.0)})
    means.add({"a": torch.tensor(6.0)})
    assert means.take() == pytest.approx({"a": 3.0, "b": 4.0})
    assert means.take() == {}
    means.add({"a": torch.tensor(5.0)})
    assert means.take() == {"a": 5.0}
