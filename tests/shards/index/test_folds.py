"""Folds keep groups together and spread labels; invalid requests are rejected."""

from collections import Counter

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.folds import grouped_folds


def _samples(groups: int, per_group: int) -> tuple[list[str], list[str]]:
    """Every group has one label; a third of the groups is violent."""
    labels = [["calm", "violent", "calm"][group % 3] for group in range(groups) for _ in range(per_group)]
    return labels, [f"scene-{group}" for group in range(groups) for _ in range(per_group)]


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_groups_stay_together_and_labels_are_spread(folds: int) -> None:
    labels, groups = _samples(60, 4)
    numbers = grouped_folds(labels, groups, folds, seed=3)
    assert sorted(set(numbers.tolist())) == list(range(folds))
    homes = {group: {n for n, g in zip(numbers.tolist(), groups, strict=True) if g == group} for group in groups}
    assert all(len(home) == 1 for home in homes.values())
    violent = np.array(labels) == "violent"
    for fold in range(folds):
        # Groups have four clips: a fold may be one group off the even share.
        assert abs(violent[numbers == fold].sum() - violent.sum() / folds) <= 4
        assert abs((numbers == fold).sum() - len(labels) / folds) <= 8


def test_the_seed_fixes_the_folds_and_another_seed_changes_them() -> None:
    labels, groups = _samples(30, 2)
    first = grouped_folds(labels, groups, 5, seed=0)
    assert (first == grouped_folds(labels, groups, 5, seed=0)).all()
    others = [grouped_folds(labels, groups, 5, seed=seed) for seed in range(1, 10)]
    assert not all((first == other).all() for other in others)


def test_every_sample_is_in_one_fold_for_any_group_sizes() -> None:
    generator = np.random.default_rng(0)
    groups = [f"g{number}" for number in generator.geometric(0.1, 300)]
    labels = [f"c{number}" for number in generator.integers(0, 4, 300)]
    numbers = grouped_folds(labels, groups, 4, seed=0)
    assert sum(Counter(numbers.tolist()).values()) == 300
    assert set(numbers.tolist()) == {0, 1, 2, 3}


def test_invalid_requests_are_refused() -> None:
    for labels, groups, folds, reason in (
        (["a", "b"], ["x", "y"], 1, "at least 2 folds"),
        (["a", "b", "a"], ["x", "y", "x"], 3, "there are 2"),
        (["a", "a", "a"], ["x", "y", "z"], 2, "two classes"),
        (["a", "b", "c"], ["x", "y", "z"], 2, "no class has more than 1"),
    ):
        with pytest.raises(RequestError, match=reason):
            grouped_folds(labels, groups, folds, seed=0)
