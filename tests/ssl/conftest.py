"""Two real processes, started once for every test of what happens between ranks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROWS, WIDTH = 6, 5
WORKER = Path(__file__).with_name("gloo_worker.py")


@pytest.fixture(scope="session")
def rank_inputs() -> dict[str, Tensor]:
    """Rows of two ranks (leading dimension): what the worker processes read."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {
        "rows": noise(2, ROWS, WIDTH),
        "factors": noise(2, 2 * ROWS, WIDTH),
        "first": noise(2, ROWS, WIDTH),
        "second": noise(2, ROWS, WIDTH),
        "head": noise(WIDTH, 4),
        # Three clips of two segments on each rank, both numbered from zero.
        "clips": torch.arange(ROWS // 2).repeat_interleave(2).repeat(2, 1),
        "valid.unequal": torch.tensor([[True] * 5 + [False], [True, False, False, True, True, False]]),
        "valid.lopsided": torch.tensor([[True, True, False, False, True, True], [False] * ROWS]),
        "valid.empty": torch.zeros(2, ROWS, dtype=torch.bool),
    }


@pytest.fixture(scope="session")
def two_ranks(rank_inputs: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("gloo")
    save_file(rank_inputs, folder / "inputs.safetensors")
    command = [sys.executable, WORKER, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"rank-{rank}.safetensors") for rank in range(2)]
