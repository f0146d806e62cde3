"""Training sharded over two gloo processes equals training with replicated weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import load_checkpoint
from torch import Tensor

STEPS = 5


def kept(run: Path) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """Weights and the optimiser's moments after the last step."""
    _, weights, state = load_checkpoint(run / "checkpoints" / f"step-{STEPS}")
    return weights, state["optimizer"]["state"]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("teacher", marks=pytest.mark.slow),
        pytest.param("supervised", marks=pytest.mark.slow),
        pytest.param("pretext", marks=pytest.mark.slow),
    ],
)
def test_sharded_training_matches_replicated_training(
    tmp_path: Path, packed: Path, launch: Callable[..., list[int]], kind: str
) -> None:
    script, log = str(Path(__file__).parents[1] / "given" / "follower.py"), str(tmp_path / "log")
    for strategy in ("ddp", "fsdp"):
        arguments = [kind, str(packed), str(tmp_path / strategy), str(STEPS), strategy]
        assert launch(arguments, 2, script=script, log=log) == [0, 0], Path(log).read_text()
    for here, there in zip(*(read_metrics(tmp_path / name) for name in ("ddp", "fsdp")), strict=True):
        for name in (name for name in here if name.endswith("loss") or name == "gradient_norm"):
            assert there[name] == pytest.approx(here[name], abs=1e-4), f"{name} after step {here['step']}"
    (weights, moments), (divided, their_moments) = kept(tmp_path / "ddp"), kept(tmp_path / "fsdp")
    assert weights.keys() == divided.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(divided[name], weight, atol=1e-4, rtol=1e-3, msg=name)
    # An unused weight has a gradient of zero here, and no gradient there.
    assert moments.keys() <= their_moments.keys()
    for number, entry in moments.items():
        for name, value in entry.items():
            assert their_moments[number][name].shape == value.shape
