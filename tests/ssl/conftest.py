"""Random features, comparison of a loss with its equation, and two real processes, started once."""

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ROWS, WIDTH = 6, 5
CLIPS, SEGMENTS, MODALITIES, FEATURES = 12, 4, 3, 8
WORKER = Path(__file__).with_name("gloo_worker.py")


@pytest.fixture(scope="session")
def leaves() -> Callable[..., Encoded]:
    """`leaves(clips, segments, names, absent={(name, clip) or (name, clip, segment)}, **facts)`: random features in
    double precision that take gradients. An absent row holds numbers too, so that reading it changes the result.
    """

    def build(
        clips: int = 5,
        segments: int = 3,
        names: Sequence[str] = ("rgb", "flow", "audio"),
        absent: Collection[tuple[str | int, ...]] = (),
        seed: int = 0,
        width: int = FEATURES,
        **facts: Tensor,
    ) -> Encoded:
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

        present = {
            name: torch.tensor(
                [[not {(name, b), (name, b, k)} & set(absent) for k in range(segments)] for b in range(clips)]
            )
            for name in names
        }
        return Encoded(
            tuple(names),
            {name: noise(clips, segments, width) for name in names},
            present,
            noise(clips, segments, width),
            torch.rand(clips, segments, len(names), generator=generator, dtype=torch.float64),
            torch.zeros(()),
            # Seconds apart, so that no segment is too near to another.
            10 * torch.arange(segments, dtype=torch.float64).expand(clips, -1),
            {"clip": torch.arange(clips), **facts},
        )

    return build


@pytest.fixture(scope="session")
def assert_equation() -> Callable[..., None]:
    """`assert_equation(loss, expected, task, encoded)`: the task's loss is the naive one, and so are the gradients by
    the features of all views and by the task's parameters.
    """

    def check(
        loss: Tensor, expected: Tensor, task: nn.Module, encoded: Mapping[str, Encoded], rtol: float = 1e-9
    ) -> None:
        torch.testing.assert_close(loss, expected, rtol=rtol, atol=1e-10)
        inputs = [p for p in task.parameters() if p.requires_grad]
        inputs += [t for view in encoded.values() for t in (*view.features.values(), view.embedding)]
        ours, theirs = (
            torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
            for value in (loss, expected)
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=100 * rtol, atol=rtol)
        assert max(float(gradient.abs().max()) for gradient in theirs) > 1e-4, "the comparison is of something"

    return check


@pytest.fixture(scope="session")
def assert_waits() -> Callable[..., None]:
    """`assert_waits(outputs, task)`: no valid row gives zero loss, no accuracy, and zero gradients everywhere."""

    def check(outputs: Mapping[str, Tensor], task: nn.Module) -> None:
        task.zero_grad()
        assert float(outputs["loss"].detach()) == 0
        assert "accuracy" not in outputs
        outputs["loss"].backward()
        for name, parameter in task.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert (parameter.grad == 0).all(), name

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
        "mixing": noise(FEATURES, FEATURES),
        "start": torch.arange(SEGMENTS, dtype=torch.float64).expand(CLIPS, -1).contiguous(),
        "present.whole": torch.ones_like(lopsided),
        "present.lopsided": lopsided,
        "present.empty": empty,
    }


@pytest.fixture(scope="session")
def gloo_folder(rank_inputs: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two processes and of one."""
    folder = tmp_path_factory.mktemp("gloo")
    save_file(rank_inputs, folder / "inputs.safetensors")
    command = [sys.executable, WORKER, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def two_ranks(gloo_folder: Path) -> list[dict[str, Tensor]]:
    """Results of each of the two processes."""
    return [load_file(gloo_folder / f"rank-{rank}.safetensors") for rank in range(2)]


@pytest.fixture(scope="session")
def one_process(gloo_folder: Path) -> dict[str, Tensor]:
    """Results of one process on the joined batch."""
    return load_file(gloo_folder / "one.safetensors")
