"""Two real processes, started once for every test of what happens between ranks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROWS, WIDTH = 6, 5
CLIPS, SEGMENTS, MODALITIES, FEATURES = 12, 4, 3, 8
WORKER = Path(__file__).with_name("gloo_worker.py")


@pytest.fixture(scope="session")
def rank_inputs() -> dict[str, Tensor]:
    """What the worker processes read: rows of two ranks (leading dimension), and a joined batch of 12 clips."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    lopsided = torch.ones(CLIPS, SEGMENTS, MODALITIES, dtype=torch.bool)
    # The second rank is silent, and the first lacks a clip's sound and a clip's flow.
    lopsided[CLIPS // 2 :, :, 2] = False
    lopsided[1, :, 2] = False
    lopsided[2, 1, 1] = False
    empty = torch.zeros_like(lopsided)
    empty[..., 0] = True
    return {
        "rows": noise(2, ROWS, WIDTH),
        "factors": noise(2, 2 * ROWS, WIDTH),
        "valid.unequal": torch.tensor([[True] * 5 + [False], [True, False, False, True, True, False]]),
        "raw.plain": noise(CLIPS, SEGMENTS, MODALITIES, FEATURES),
        "raw.reverse": noise(CLIPS, 1, MODALITIES, FEATURES),
        "raw.pace": noise(CLIPS, 1, MODALITIES, FEATURES),
        "raw.corrupt": noise(CLIPS, 1, MODALITIES, FEATURES),
        "mixing": noise(FEATURES, FEATURES),
        "start": torch.arange(SEGMENTS, dtype=torch.float64).expand(CLIPS, -1).contiguous(),
        "present.whole": torch.ones_like(lopsided),
        "present.lopsided": lopsided,
        "present.empty": empty,
    }


@pytest.fixture(scope="session")
def gloo_folder(rank_inputs: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes and one alone left."""
    folder = tmp_path_factory.mktemp("gloo")
    save_file(rank_inputs, folder / "inputs.safetensors")
    command = [sys.executable, WORKER, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def two_ranks(gloo_folder: Path) -> list[dict[str, Tensor]]:
    """What each of the two processes found."""
    return [load_file(gloo_folder / f"rank-{rank}.safetensors") for rank in range(2)]


@pytest.fixture(scope="session")
def one_process(gloo_folder: Path) -> dict[str, Tensor]:
    """What one process found on the joined batch."""
    return load_file(gloo_folder / "one.safetensors")
