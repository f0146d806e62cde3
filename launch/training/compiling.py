"""`torch.compile` for the parts of an objective that hold its arithmetic, while it trains."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError

from ...fusion.backbone import Backbone
from ...shards.errors import RequestError


@contextmanager
def compiled(objective: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, the encoders of every backbone in `objective` are compiled, if `wanted`; or else it is itself.

    The objective around the encoders takes batches, draws and schedules apart in Python, which does not compile.
    Modules are compiled in place: names and tensors of the state dict stay as they are. Raises `RequestError` where
    there is no compiler for the CPU's code, and where torch's own compiler gives up on a network.
    """
    if not wanted:
        yield
        return
    if not torch.cuda.is_available() and not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name
    ):
        raise RequestError("config key 'train.compile' needs a C++ compiler on a CPU: install g++, or leave it off")
    backbones = [module for module in objective.modules() if isinstance(module, Backbone)]
    parts = [encoder for backbone in backbones for encoder in backbone.encoders.values()] or [objective]
    for part in parts:
        part.compile()
    try:
        yield
    except (InductorError, BackendCompilerFailed) as error:
        raise RequestError(
            f"config key 'train.compile': torch {torch.__version__} cannot compile these encoders "
            f"({(str(error).strip() or 'no reason given').splitlines()[0]}): leave it off"
        ) from error
    finally:
        for part in parts:
            part._compiled_call_impl = None
