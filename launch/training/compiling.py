"""`torch.compile` for the encoders of an objective during training."""

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
    """Inside the block, the encoders of every backbone in `objective` are compiled if `wanted`; without a backbone,
    the objective itself.

    The code around the encoders unpacks batches, draws and schedules in Python, which does not compile. Modules are
    compiled in place: names and tensors of the state dict do not change. Raises `RequestError` without a C++ compiler
    on a CPU, and if torch cannot compile a network.
    """
    if not wanted:
        yield
        return
    if not torch.cuda.is_available() and not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name
    ):
        raise RequestError(
            "config key 'train.compile' needs a C++ compiler on a CPU: install g++, or set train.compile=false"
        )
    backbones = [module for module in objective.modules() if isinstance(module, Backbone)]
    parts = [encoder for backbone in backbones for encoder in backbone.encoders.values()] or [objective]
    for part in parts:
        part.compile()
    try:
        yield
    except (InductorError, BackendCompilerFailed) as error:
        raise RequestError(
            f"config key 'train.compile': torch {torch.__version__} cannot compile these encoders "
            f"({(str(error).strip() or 'no reason given').splitlines()[0]}): set train.compile=false"
        ) from error
    finally:
        for part in parts:
            part._compiled_call_impl = None
