"""From a config to the things it names."""

import pytest
from modalgate.launch.building import in_steps
from modalgate.launch.schema import TrainConfig


@pytest.mark.parametrize(
    ("epochs", "clips", "batch_size", "accumulate", "steps"),
    [(None, 100, 10, 1, 400), (3.0, 100, 10, 1, 30), (3.0, 109, 10, 1, 30), (2.0, 100, 10, 4, 5), (0.5, 3, 10, 1, 1)],
)
def test_epochs_come_to_whole_global_batches(
    epochs: float | None, clips: int, batch_size: int, accumulate: int, steps: int
) -> None:
    assert in_steps(TrainConfig(epochs=epochs, accumulate=accumulate), clips, batch_size).steps == steps
