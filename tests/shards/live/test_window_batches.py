"""Batches of constant size and equal modalities: results, their order, and what the model gets."""

import numpy as np
from modalgate.shards.clips.piece import Window
from modalgate.shards.live.window_batches import Batcher


def window(number: int, *names: str) -> Window:
    return Window(float(number), number + 1.0, {name: np.zeros(1) for name in names})


class Model:
    """Notes what it was shown."""

    def __init__(self) -> None:
        self.shown: list[list[float]] = []

    def __call__(self, windows: list[Window]) -> list[float]:
        assert len({tuple(one.streams) for one in windows}) == 1
        self.shown.append([one.start for one in windows])
        return [one.start * 10 for one in windows]


def test_a_batch_has_one_kind_and_is_padded_at_the_end() -> None:
    model = Model()
    batcher = Batcher[str, float](model, 3)
    kinds = [("rgb", "audio"), ("rgb",), ("rgb", "audio"), ("rgb", "audio"), ("rgb",)]
    found = [batcher.put(f"tag {number}", window(number, *kind)) for number, kind in enumerate(kinds)]
    assert found == [[], [], [], [("tag 0", 0.0), ("tag 2", 20.0), ("tag 3", 30.0)], []]
    assert batcher.rest() == [("tag 1", 10.0), ("tag 4", 40.0)]
    assert model.shown == [[0, 2, 3], [1, 4, 4]]
    assert batcher.rest() == []


def test_no_window_waits_for_ever() -> None:
    model = Model()
    batcher = Batcher[int, float](model, 2, patience=5)
    assert batcher.put(0, window(0, "audio")) == []
    for number in range(1, 5):
        assert 0 not in [tag for tag, _ in batcher.put(number, window(number, "rgb"))]
    assert (0, 0.0) in batcher.put(5, window(5, "rgb"))
    # The window that waits now has just been added.
    assert batcher.put(6, window(6, "audio")) == []
