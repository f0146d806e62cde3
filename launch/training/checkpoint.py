"""Checkpoints, whole or not there: RUN/checkpoints/step-N, read back without unpickling."""

import hashlib
import json
import math
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...shards.errors import DataError

MODEL, STATE, FACTS = "model.safetensors", "state.safetensors", "state.json"


def save_checkpoint(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
    score: float | None = None,
) -> Path:
    """Writes `model` (a state dict) and `state` (nested dicts, lists, numbers, text and tensors).

    The files are written and synced in a hidden folder, which is then renamed: a kill or a full disk leaves earlier
    checkpoints as they were. This one, the newest `keep` whole checkpoints, and the whole one with the highest
    `score` are kept; damaged ones do not count. Raises `DataError` if the checkpoint cannot be written.
    """
    target = run / "checkpoints" / f"step-{step}"
    partial = target.parent / f".{target.name}.partial"
    tensors: dict[str, Tensor] = {}
    tree = _pack(dict(state), tensors)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file(_plain(model), partial / MODEL)
        save_file(_plain(tensors), partial / STATE)
        sums = {name: _sha256(partial / name) for name in (MODEL, STATE)}
        facts = {"step": step, "score": score, "sha256": sums, "state": tree}
        (partial / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        for name in (MODEL, STATE, FACTS, "."):
            _sync(partial / name)
        # An existing checkpoint of this step is damaged or the same: a run resumes from the newest whole one.
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"checkpoint '{target}' could not be written ({error}): the previous one is kept") from error
    _prune(run, target, keep)
    return target


def _prune(run: Path, written: Path, keep: int) -> None:
    """Deletes what is older than the newest `keep` whole checkpoints, but neither `written` nor the best one.

    A damaged checkpoint after `written` stays until its step is reached again.
    """
    kept, best = {written}, best_checkpoint(run)
    # Checking a checkpoint reads it whole, so the check ends with the last one to keep.
    for folder in _numbered(run):
        if len(kept) < keep and folder != written and _whole(folder):
            kept.add(folder)
    for folder in _numbered(run):
        if folder not in kept and folder != best and _step(folder) <= _step(written):
            shutil.rmtree(folder)
    for left in written.parent.glob(".step-*.partial"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint, or None; damaged and partial ones are skipped."""
    return next((folder for folder in _numbered(run) if _whole(folder)), None)


def steps_done(run: Path) -> int:
    """The step of the newest whole checkpoint, 0 without one: a training resumed with fewer steps has done more."""
    folder = latest_checkpoint(run)
    return 0 if folder is None else _step(folder)


def resumed_checkpoint(run: Path) -> tuple[Path | None, list[Path]]:
    """The checkpoint to resume `run` from, None if it has none, and the damaged ones after it.

    Raises `DataError`, with their names, if all are damaged: starting again would overwrite what the run has logged.
    """
    damaged: list[Path] = []
    for folder in _numbered(run):
        if _whole(folder):
            return folder, damaged
        damaged.append(folder)
    if damaged:
        names = ", ".join(folder.name for folder in damaged)
        raise DataError(
            f"every checkpoint in '{run / 'checkpoints'}' is damaged ({names}): restore one from a copy, or delete "
            "them to train from step 0 again"
        )
    return None, []


def best_checkpoint(run: Path) -> Path | None:
    """The whole checkpoint with the highest score, the newest of equal ones; None if none has a score."""
    scores = {folder: _score(folder) for folder in _numbered(run)}
    scored = {folder: score for folder, score in scores.items() if score is not None and not math.isnan(score)}
    return next((folder for folder in sorted(scored, key=scored.__getitem__, reverse=True) if _whole(folder)), None)


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """(step, model state dict, state) on the CPU. Raises `DataError` for a damaged file."""
    if not _whole(folder):
        raise DataError(f"checkpoint '{folder}' is damaged: delete it to resume from the previous one")
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts["step"], load_file(folder / MODEL), _unpack(facts["state"], load_file(folder / STATE))


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators, as plain values."""
    # `get_state` reads NumPy's legacy global generator, which libraries still use.
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    version, words, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restores the result of `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Plain JSON: each tensor becomes its number in `tensors`, dicts become pairs, because optimisers key by
    number.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _pack(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(entry, tensors) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds tensors, numbers and text, not {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _unpack(entry, tensors) for key, entry in value["pairs"]}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _numbered(run: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    folders = [path for path in (run / "checkpoints").glob("step-*") if path.name[5:].isdigit()]
    return sorted(folders, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _score(folder: Path) -> float | None:
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))["score"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _whole(folder: Path) -> bool:
    try:
        sums = json.loads((folder / FACTS).read_text(encoding="utf-8"))["sha256"]
        return all(_sha256(folder / name) == sums[name] for name in (MODEL, STATE))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
