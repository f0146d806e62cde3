"""Splits by column and by folds, on a small index."""

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.tasks.splits.splits import (
    folds_of,
    given_split,
    groups_of,
    hold_out,
    labelled,
    one_group_out,
    take,
)


def index(rows: list[dict[str, str]]) -> Index:
    samples = tuple(Sample(f"k{number}", "s.tar", 1.0, row, {}) for number, row in enumerate(rows))
    return Index(PackSettings(), {}, (), samples)


SPLIT = index(
    [{"label": label, "split": split} for label in ("b", "a") for split in ("pretrain", "train", "val", "test")]
)


def test_the_given_split_selects_by_column() -> None:
    split = given_split(SPLIT, "train", "test")
    assert split.train.tolist() == [1, 5]
    assert split.validation.tolist() == [2, 6]
    assert split.test.tolist() == [3, 7]
    assert given_split(SPLIT, "pretrain+train", "test").train.tolist() == [0, 1, 4, 5]
    assert given_split(SPLIT, "pretrain").test.tolist() == []
    # Validation clips that are used for training are not held out.
    assert given_split(SPLIT, "train+val", "test").validation.tolist() == []


def test_an_unknown_split_value_raises_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="'train'"):
        given_split(SPLIT, "trian", "test")


def test_clips_without_a_split_raise_with_the_alternative() -> None:
    with pytest.raises(RequestError, match=r"no column 'split'.*--folds 5"):
        given_split(index([{"label": "a"}, {"label": "b"}]), "train", "test")


def test_classes_are_sorted_and_unlabelled_clips_dropped() -> None:
    kept, classes, numbers = labelled(index([{"label": "b"}, {"label": ""}, {"label": "a"}]), "label")
    assert classes == ["a", "b"]
    assert numbers.tolist() == [1, 0]
    assert [sample.key for sample in kept.samples] == ["k0", "k2"]
    with pytest.raises(RequestError, match="fewer than two"):
        labelled(index([{"label": "b"}, {"label": "b"}]), "label")


def test_folds_test_every_clip_once_and_keep_groups_whole() -> None:
    rows = [{"label": "ab"[number % 2], "group": f"g{number // 3}"} for number in range(30)]
    splits = folds_of(index(rows), "label", 5, "group")
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested.tolist()) == list(range(30))
    for split in splits:
        groups = [{rows[i]["group"] for i in part} for part in (split.train, split.test)]
        assert not groups[0] & groups[1]
    assert groups_of(index(rows), "group") == [row["group"] for row in rows]
    assert groups_of(index(rows), "camera") is None


def test_take_keeps_the_given_samples() -> None:
    assert [sample.key for sample in take(SPLIT, np.array([1, 4])).samples] == ["k1", "k4"]


def test_hold_out_takes_a_whole_group() -> None:
    rows = [
        {"label": "ab"[number % 2], "subject": f"s{number // 6}", "split": "train" if number < 24 else "test"}
        for number in range(30)
    ]
    clips = index(rows)
    split = hold_out(given_split(clips, "train", "test"), clips, "label", "subject")
    held = {rows[number]["subject"] for number in split.validation}
    assert len(held) == 1
    assert held.isdisjoint(rows[number]["subject"] for number in split.train)
    assert sorted([*split.train, *split.validation]) == list(range(24))
    alone = index([{"label": "ab"[n % 2], "subject": "s", "split": "train" if n < 4 else "test"} for n in range(6)])
    with pytest.raises(RequestError, match="groups"):
        hold_out(given_split(alone, "train", "test"), alone, "label", "subject")


def test_an_empty_value_is_not_a_class_but_a_separate_group() -> None:
    blank = index([{"label": "b"}, {"label": "  "}, {"label": ""}, {}, {"label": "a"}])
    kept, classes, _ = labelled(blank, "label")
    assert classes == ["a", "b"]
    assert [sample.key for sample in kept.samples] == ["k0", "k4"]
    people = [{"label": "ab"[number % 2], "subject": f"s{number // 4}"} for number in range(16)]
    nobody = [{"label": "ab"[number % 2], "subject": " " * number} for number in range(4)]
    both = index(people + nobody)
    assert groups_of(both, "subject") == [*(row["subject"] for row in people), "k16", "k17", "k18", "k19"]
    splits = one_group_out(both, "subject")
    named = {split.name: split for split in splits}
    assert sorted(named) == [f"subject-{name}" for name in ("k16", "k17", "k18", "k19", "s0", "s1", "s2", "s3")]
    assert named["subject-s0"].test.tolist() == [0, 1, 2, 3]
    assert named["subject-s0"].train.tolist() == list(range(4, 20))
    assert named["subject-k17"].test.tolist() == [17]
    assert 16 in named["subject-k17"].train, "samples without a subject are not one group"
    folds = folds_of(both, "label", 4, "subject")
    # As one group, the four samples without a subject would all be tested together.
    assert max(sum(number >= 16 for number in split.test.tolist()) for split in folds) < 4
