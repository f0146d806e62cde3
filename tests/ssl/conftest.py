"""Random encodings to compare losses on, and two real processes for what happens between ranks."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from safetensors.torch import load_file, save_file
from torch import Tensor

ROWS, WIDTH = 6, 5
CLIPS, SEGMENTS, MODALITIES, FEATURES = 12, 4, 3, 8
WORKER = Path(__file__).with_name("gloo_worker.py")


@pytest.fixture(scope="session")
def draw_encoded() -> Callable[..., Encoded]:
    """`draw_encoded(names, clips, segments, absent, seed)`: double precision, every feature a leaf with a gradient.

    `absent`: (modality, clip) pairs. Segments start a second apart.
    """

    def draw(
        names: tuple[str, ...] = ("rgb", "audio"),
        clips: int = 5,
        segments: int = 3,
        absent: Iterable[tuple[str, int]] = (),
        seed: int = 0,
        **facts: Tensor,
    ) -> Encoded:
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

        features = {name: noise(clips, segments, FEATURES) for name in names}
        present = {name: torch.ones(clips, segments, dtype=torch.bool) for name in names}
        for name, clip in absent:
            present[name][clip] = False
        weights = torch.rand(clips, segments, len(names), generator=generator, dtype=torch.float64)
        weights = weights * torch.stack(list(present.values()), dim=-1)
        start = torch.arange(segments, dtype=torch.float64).expand(clips, -1)
        embedding = noise(clips, segments, FEATURES)
        return Encoded(names, features, present, embedding, weights, torch.zeros(()), start, dict(facts))

    return draw


@pytest.fixture(scope="session")
def same_loss() -> Callable[[Tensor, Tensor, Iterable[Tensor]], None]:
    """Asserts that two losses agree, and their gradients by every given tensor."""

    def check(found: Tensor, expected: Tensor, tensors: Iterable[Tensor]) -> None:
        torch.testing.assert_close(found, expected)
        leaves = [tensor for tensor in tensors if tensor.requires_grad]
        options = {"retain_graph": True, "allow_unused": True}
        mine = torch.autograd.grad(found, leaves, **options)
        theirs = torch.autograd.grad(expected, leaves, **options)
        assert any(gradient is not None and bool(gradient.any()) for gradient in theirs)
        for leaf, one, other in zip(leaves, mine, theirs, strict=True):
            nothing = torch.zeros_like(leaf)
            torch.testing.assert_close(nothing if one is None else one, nothing if other is None else other)

    return check


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
