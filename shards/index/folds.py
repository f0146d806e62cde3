"""Cross-validation folds that keep each group in one fold."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

# Folds of a cross-validation. Many clips get fewer: each model takes longer, and intervals are narrow anyway.
FOLDS, FEWER_FOLDS, MANY = 5, 3, 600


def usual_folds(clips: int) -> int:
    """Returns the default number of folds for a number of clips."""
    return FOLDS if clips <= MANY else FEWER_FOLDS


def grouped_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Returns the fold number (n,) of each sample. Labels are spread evenly, and samples of one group share a fold.

    A class with fewer clips than folds is missing from some folds; scikit-learn warns of it. Raises `RequestError`
    for fewer than two folds, for a single class, for fewer groups than folds, and if no class has as many clips as
    folds.
    """
    if folds < 2:
        raise RequestError(f"cross-validation needs at least 2 folds, not {folds}")
    from sklearn.model_selection import StratifiedGroupKFold

    counts = Counter(labels)
    if len(counts) < 2:
        raise RequestError("folds need at least two classes: all clips have the same label")
    if len(set(groups)) < folds:
        raise RequestError(f"{folds} folds need as many groups, there are {len(set(groups))}: use fewer folds")
    if max(counts.values()) < folds:
        raise RequestError(
            f"{folds} folds need as many clips of a class, no class has more than {max(counts.values())}: "
            "use fewer folds"
        )
    numbers = np.zeros(len(labels), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splitter.split(np.zeros(len(labels)), list(labels), list(groups))):
        numbers[test] = number
    return numbers
