"""Device settings of the launcher and of the config."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from modalgate.launch.training.device import determinism, make_accelerator
from modalgate.shards.errors import RequestError


def test_one_process_instead_of_several_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that `accelerate launch --cpu --num_processes 2` gives to its single process."""
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RequestError, match="starts one process, which would train alone"):
        make_accelerator("fp32")
    monkeypatch.delenv("MASTER_PORT")  # without --num_processes the request is for one process
    make_accelerator("fp32")


def test_nondeterministic_operations_raise_in_deterministic_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write_twice() -> None:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with determinism(False):
        write_twice()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with determinism(True):
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
            write_twice()
    write_twice()
    assert torch.backends.cudnn.benchmark
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


# In a separate process, because the allocator's settings cannot be undone.
FAULTS = """
import resource
import sys
import torch
from modalgate.launch.training.device import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
torch.zeros(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.name != "posix" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt"
)
def test_freed_memory_is_reused_by_the_next_step() -> None:
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("plain", "kept")
    )
    assert kept < plain / 4
