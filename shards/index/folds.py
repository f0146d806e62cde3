"""Cross-validation folds that never split a group."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

# Folds of a cross-validation, and of one with more clips than MANY, whose models take longer to train.
FOLDS, FEWER_FOLDS, MANY = 5, 3, 600


def usual_folds(clips: int) -> int:
    """The number of folds for so many clips where nobody asks for another."""
    return FOLDS if clips <= MANY else FEWER_FOLDS


def grouped_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold number (n,) of each sample: labels are spread evenly, and a group's samples share a fold.

    A class rarer than the folds is missing from some of them, of which scikit-learn warns. Raises `RequestError` for
    fewer than two folds, fewer groups or clips of a class than folds, and a single class.
    """
    if folds < 2:
        raise RequestError(f"cross-validation needs at least 2 folds, not {folds}")
    from sklearn.model_selection import StratifiedGroupKFold

    counts = Counter(labels)
    if len(counts) < 2:
        raise RequestError("folds need at least two classes, all clips have the same label")
    if len(set(groups)) < folds:
        raise RequestError(f"{folds} folds need as many groups, there are {len(set(groups))}: ask for fewer folds")
    if max(counts.values()) < folds:
        raise RequestError(
            f"{folds} folds need as many clips of a class, no class has more than {max(counts.values())}: "
            "ask for fewer folds"
        )
    numbers = np.zeros(len(labels), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splitter.split(np.zeros(len(labels)), list(labels), list(groups))):
        numbers[test] = number
    return numbers
