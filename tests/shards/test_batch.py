"""Stacking clips into a batch, and moving it to a device."""

import pytest
import torch
from modalgate.shards.batch import Batch, Clip, stack
from modalgate.shards.stream import _Read
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory


def clip(
    key: str, rgb: int | None = None, audio: float | None = None, label: int | None = 0, valid: bool = True
) -> Clip:
    """Two segments filled with one value per stream; a stream without a value is absent."""
    streams = {}
    if rgb is not None:
        streams["rgb"] = torch.full((2, 3, 3, 4, 4), rgb, dtype=torch.uint8)
    if audio is not None:
        streams["audio"] = torch.full((2, 10), audio)
    present = {"rgb": rgb is not None, "audio": audio is not None}
    return Clip(streams, present, key, torch.tensor([0.0, 1.0]), label, valid)


def test_rows_keep_their_order() -> None:
    batch = stack([clip("a", 1, 0.5, label=2), clip("b", 7, 0.25, label=0, valid=False)], seed=9)
    assert batch.key == ["a", "b"]
    assert len(batch) == 2
    assert batch.streams["rgb"].shape == (2, 2, 3, 3, 4, 4)
    assert batch.streams["rgb"].dtype == torch.uint8
    assert batch.streams["rgb"][:, 1, 0, 0, 0, 0].tolist() == [1, 7]
    assert batch.streams["audio"][:, 0, 0].tolist() == [0.5, 0.25]
    assert batch.start.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert batch.label is not None
    assert batch.label.tolist() == [2, 0]
    assert batch.valid.tolist() == [True, False]
    assert batch.seed == 9


def test_an_absent_stream_is_masked_zeros_of_the_same_shape() -> None:
    batch = stack([clip("a", 1), clip("b", 2, 0.5)], seed=0)
    assert batch.present["audio"].tolist() == [[False, False], [True, True]]
    assert batch.present["rgb"].all()
    assert batch.streams["audio"].shape == (2, 2, 10)
    assert (batch.streams["audio"][0] == 0).all()


def test_a_stream_that_no_clip_has_is_only_masked() -> None:
    batch = stack([clip("a", 1), clip("b", 2)], seed=0)
    assert set(batch.streams) == {"rgb"}
    assert batch.present["audio"].tolist() == [[False, False]] * 2


def test_a_batch_with_an_unlabelled_clip_has_no_labels() -> None:
    assert stack([clip("a", 1), clip("b", 2, label=None)], seed=0).label is None


def test_moving_keeps_everything() -> None:
    batch = stack([clip("a", 1, 0.5), clip("b", 2)], seed=4)
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in (*moved.streams.values(), *moved.present.values())} == {"meta"}
    assert moved.start.device.type == moved.valid.device.type == "meta"
    assert moved.label is not None
    assert moved.label.device.type == "meta"
    assert (moved.key, moved.seed, len(moved)) == (["a", "b"], 4, 2)


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loader's own function, which passes over classes without the method. Pinning itself needs a GPU."""
    pinned: list[Tensor] = []

    def pin(values: Tensor) -> Tensor:
        pinned.append(values)
        return values.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    present = {"rgb": torch.ones(2, 1, dtype=torch.bool)}
    streams = {"rgb": torch.arange(8.0).reshape(2, 1, 4)}
    batch = Batch(streams, present, ["a", "b"], torch.zeros(2, 1), torch.tensor([0, 1]), torch.ones(2) > 0, 7)
    read = pin_memory(_Read(batch, {"c": "damaged"}))
    assert (read.batch.key, read.batch.seed, read.damaged) == (["a", "b"], 7, {"c": "damaged"})
    assert torch.equal(read.batch.streams["rgb"], streams["rgb"])
    assert len(pinned) == 5
    nothing = _Read(None, {}, "too many files are open")
    assert pin_memory(nothing) is nothing
