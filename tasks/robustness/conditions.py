"""Conditions that a model is measured under, and what it answered: kept in a file, so that runs can be compared."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...shards.errors import DataError
from ...shards.index.whole_file import whole_file

MISSING, ALL = "missing", "all"
# What is done to all modalities at once: levels of it mean the same for each.
TOGETHER = "noise"
# The file of a run's results folder.
SWEEP = "robustness.safetensors"
_ARRAYS = ("probabilities", "weights", "valid", "present", "labels")


@dataclass(frozen=True)
class Condition:
    """`modality` at `level` of `axis`, the others clean, or absent where it is `alone`.

    Axis `missing`: `modality` joins by `+` those that are present. Modality `all`: every one is corrupted.
    """

    axis: str
    modality: str
    level: float = 0.0
    alone: bool = False


@dataclass
class Sweep:
    """n clips under Q `conditions`: `probabilities` (Q, n, C), views averaged; `weights` (Q, n, M) mean gate weights;
    `valid` (Q, n): whether the condition can be met in the clip; `present` (n, M); `labels` (n,); `keys`."""

    classes: list[str]
    modalities: list[str]
    conditions: list[Condition]
    probabilities: NDArray[np.float32]
    weights: NDArray[np.float32]
    valid: NDArray[np.bool_]
    present: NDArray[np.bool_]
    labels: NDArray[np.int64]
    keys: list[str]
    seed: int = 0

    def rows(self, order: Sequence[int] | NDArray[np.int64]) -> "Sweep":
        """Some of the clips, or all in another order."""
        return replace(
            self,
            probabilities=self.probabilities[:, order],
            weights=self.weights[:, order],
            valid=self.valid[:, order],
            present=self.present[order],
            labels=self.labels[order],
            keys=[self.keys[int(number)] for number in order],
        )


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All 2^M - 1 that are not empty, small ones first."""
    return [kept for count in range(1, len(names) + 1) for kept in combinations(names, count)]


def join_sweeps(parts: Sequence[Sweep]) -> Sweep:
    """The test clips of several folds as one, under the conditions of the first."""
    first = parts[0]
    return replace(
        first,
        probabilities=np.concatenate([part.probabilities for part in parts], axis=1),
        weights=np.concatenate([part.weights for part in parts], axis=1),
        valid=np.concatenate([part.valid for part in parts], axis=1),
        present=np.concatenate([part.present for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        keys=[key for part in parts for key in part.keys],
    )


def save_sweep(sweep: Sweep, units: Sequence[str], path: Path) -> None:
    """Writes the sweep and the bootstrap's `units` by clip to `path`, whole or not at all."""
    facts = {
        "classes": sweep.classes,
        "modalities": sweep.modalities,
        "conditions": [[c.axis, c.modality, str(c.level), c.alone] for c in sweep.conditions],
        "keys": sweep.keys,
        "units": list(units),
        "seed": sweep.seed,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(getattr(sweep, name)) for name in _ARRAYS}
    with whole_file(path) as partial:
        save_file(arrays, partial, {"facts": json.dumps(facts)})


def load_sweep(path: Path) -> tuple[Sweep, list[str]]:
    """What `save_sweep` wrote: the sweep and its units; `DataError` names a damaged file."""
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
        )
        return sweep, facts["units"]
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"robustness file '{path}' is damaged ({error}): measure it again") from error
