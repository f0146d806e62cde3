"""Test conditions, and the stored predictions of a model under each of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...shards.errors import DataError
from ...shards.index.whole_file import whole_file

MISSING, ALL = "missing", "all"
# The axis applied to all modalities together: its levels mean the same for each.
TOGETHER = "noise"
# Name of the file in the results folder of a run.
SWEEP = "robustness.safetensors"
_ARRAYS = ("probabilities", "weights", "valid", "present", "labels")


@dataclass(frozen=True)
class Condition:
    """One test condition."""

    axis: str
    """Kind of corruption, or `missing`."""
    modality: str
    """Corrupted modality. `all`: every modality. For the axis `missing`: the present modalities, joined by `+`."""
    level: float = 0.0
    """Level on the axis."""
    alone: bool = False
    """Whether all other modalities are absent, instead of clean."""


@dataclass
class Sweep:
    """Predictions for n clips under Q conditions."""

    classes: list[str]
    modalities: list[str]
    conditions: list[Condition]
    probabilities: NDArray[np.float32]
    """Class probabilities (Q, n, C), averaged over views."""
    weights: NDArray[np.float32]
    """Mean gate weights (Q, n, M)."""
    valid: NDArray[np.bool_]
    """Whether the condition applies to the clip (Q, n)."""
    present: NDArray[np.bool_]
    """Whether the clip has the modality (n, M)."""
    labels: NDArray[np.int64]
    """Class numbers (n,)."""
    keys: list[str]
    """Clip keys."""
    seed: int = 0
    """Seed of the random draws."""
    folds: list[str] = field(default_factory=list)
    """Name of the fold whose model scored each clip (n,). Empty: one model scored all."""

    def rows(self, order: Sequence[int] | NDArray[np.int64]) -> "Sweep":
        """Returns the clips with these row numbers, in this order."""
        return replace(
            self,
            probabilities=self.probabilities[:, order],
            weights=self.weights[:, order],
            valid=self.valid[:, order],
            present=self.present[order],
            labels=self.labels[order],
            keys=[self.keys[int(number)] for number in order],
            folds=[self.folds[int(number)] for number in order] if self.folds else [],
        )


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns all 2^M - 1 non-empty subsets, smallest first.

    >>> subsets(["rgb", "audio"])
    [('rgb',), ('audio',), ('rgb', 'audio')]
    """
    return [kept for count in range(1, len(names) + 1) for kept in combinations(names, count)]


def join_sweeps(parts: Sequence[Sweep]) -> Sweep:
    """Concatenates the test clips of several folds, under the conditions of the first.

    Keeps the number of each clip's fold.
    """
    first = parts[0]
    folds = [str(number) for number, part in enumerate(parts) for _ in part.keys]
    return replace(
        first,
        probabilities=np.concatenate([part.probabilities for part in parts], axis=1),
        weights=np.concatenate([part.weights for part in parts], axis=1),
        valid=np.concatenate([part.valid for part in parts], axis=1),
        present=np.concatenate([part.present for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        keys=[key for part in parts for key in part.keys],
        folds=folds if len(parts) > 1 else [],
    )


def save_sweep(sweep: Sweep, units: Sequence[str], path: Path) -> None:
    """Writes the sweep and the group of each clip (`units`) to `path`, atomically."""
    facts = {
        "classes": sweep.classes,
        "modalities": sweep.modalities,
        "conditions": [[c.axis, c.modality, str(c.level), c.alone] for c in sweep.conditions],
        "keys": sweep.keys,
        "units": list(units),
        "seed": sweep.seed,
        "folds": sweep.folds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(getattr(sweep, name)) for name in _ARRAYS}
    with whole_file(path) as partial:
        save_file(arrays, partial, {"facts": json.dumps(facts)})


def load_sweep(path: Path) -> tuple[Sweep, list[str]]:
    """Returns the sweep and the units written by `save_sweep`. Raises `DataError` if the file is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads(file.metadata()["facts"])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        conditions = [Condition(axis, name, float(level), alone) for axis, name, level, alone in facts["conditions"]]
        sweep = Sweep(
            facts["classes"],
            facts["modalities"],
            conditions,
            **arrays,
            keys=facts["keys"],
            seed=facts["seed"],
            folds=facts["folds"],
        )
        return sweep, facts["units"]
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"robustness file '{path}' is damaged ({error}): rerun `modalgate robustness`") from error
