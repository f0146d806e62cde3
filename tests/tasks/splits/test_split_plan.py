"""The four ways to divide clips, and invalid plans."""

from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.tasks.splits.split_plan import SplitPlan, default_plan, plan_splits


def index(rows: list[dict[str, str]], keys: list[str] | None = None) -> Index:
    names = keys or [f"k{number}" for number in range(len(rows))]
    samples = tuple(Sample(key, "s.tar", 1.0, row, {}) for key, row in zip(names, rows, strict=True))
    return Index(PackSettings(), {}, (), samples)


GROUPED = index([{"label": "ab"[number % 2], "group": f"g{number // 4}"} for number in range(40)])


def groups(part: np.ndarray) -> set[str]:
    return {GROUPED.samples[number].labels["group"] for number in part}


def test_folds_keep_groups_together_unless_leaky() -> None:
    splits = plan_splits(GROUPED, "label", SplitPlan(folds=5))
    assert all(not groups(split.train) & groups(split.test) for split in splits)
    leaky = plan_splits(GROUPED, "label", SplitPlan(folds=5, leaky=True))
    assert all(groups(split.train) & groups(split.test) for split in leaky)
    assert sorted(np.concatenate([split.test for split in leaky]).tolist()) == list(range(40))


def test_a_random_split_of_grouped_clips_raises() -> None:
    with pytest.raises(RequestError, match="both sides"):
        plan_splits(GROUPED, "label", SplitPlan(folds=5, group=""))
    with pytest.raises(RequestError, match="did you mean 'group'"):
        plan_splits(GROUPED, "label", SplitPlan(folds=5, group="grop"))


def test_folds_by_another_column_warn_of_divided_groups(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"label": "ab"[n % 2], "group": f"g{n // 4}", "room": f"r{n % 5}"} for n in range(40)]
    plan_splits(index(rows), "label", SplitPlan(folds=2, group="room"))
    assert "values of 'group' have clips on both sides" in capsys.readouterr().err
    within = [row | {"room": f"r{n // 8}"} for n, row in enumerate(rows)]
    plan_splits(index(within), "label", SplitPlan(folds=2, group="room"))
    assert not capsys.readouterr().err


def test_clips_without_groups_are_divided_singly_with_one_note(capsys: pytest.CaptureFixture[str]) -> None:
    plain = index([{"label": "ab"[number % 2]} for number in range(20)])
    plan = SplitPlan(folds=4)
    splits = plan_splits(plain, "label", plan)
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(20))
    (line,) = capsys.readouterr().err.splitlines()
    assert "no column 'group'" in line
    assert "'group'" not in plan.describe(plain)
    assert "'group'" in plan.describe(GROUPED)
    # No note if leaky is set, or if there are groups.
    plan_splits(plain, "label", SplitPlan(folds=4, leaky=True))
    plan_splits(GROUPED, "label", plan)
    assert not capsys.readouterr().err
    with pytest.raises(RequestError, match="'camera'"):
        plan_splits(plain, "label", SplitPlan(folds=4, group="camera"))


def test_leaving_one_out_names_clips_that_are_groups_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"label": "ab"[n % 2], "group": f"g{n // 4}" if n < 8 else ""} for n in range(11)]
    splits = plan_splits(index(rows), "label", SplitPlan(leave_one_out=True))
    assert sorted(len(split.test) for split in splits) == [1, 1, 1, 4, 4]
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(11))
    assert "3 clips without a value in column 'group' are groups of their own" in capsys.readouterr().err


def test_each_group_is_left_out_once() -> None:
    splits = plan_splits(GROUPED, "label", SplitPlan(leave_one_out=True))
    assert [groups(split.test) for split in splits] == [{f"g{number}"} for number in range(10)]
    assert all(len(split.train) == 36 for split in splits)
    with pytest.raises(RequestError, match="only one value"):
        plan_splits(
            index([{"label": "a", "group": "g"}, {"label": "b", "group": "g"}]),
            "label",
            SplitPlan(leave_one_out=True),
        )


def test_official_lists_name_files_by_their_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["v_Punch_g01_c01", "v_Punch_g02_c01-0001", "v_Punch_g02_c01-0002", "Run_clip", "Jump_clip", "unlisted"]
    listed = index([{"label": "a"}] * 6, keys)
    first = {
        "train01.txt": "Punch/v_Punch_g01_c01.avi 1\nRun/clip.avi 2\nGone/away.avi 3\n",
        "test01.txt": "Punch/v_Punch_g02_c01.avi\nJump/clip.avi\n",
    }
    for name, text in first.items():
        (tmp_path / name).write_text(text)
    paths = tuple(str(tmp_path / name) for name in first)
    (split,) = plan_splits(listed, "label", SplitPlan(lists=paths))
    assert split.name == "test01"
    assert [keys[number] for number in split.train] == ["v_Punch_g01_c01", "Run_clip"]
    assert [keys[number] for number in split.test] == ["v_Punch_g02_c01-0001", "v_Punch_g02_c01-0002", "Jump_clip"]
    assert "1 of 3 clips of 'train01.txt'" in capsys.readouterr().err

    # As Windows saves it.
    (tmp_path / "train01.txt").write_bytes(first["train01.txt"].replace("/", "\\").encode("utf-8-sig"))
    (again,) = plan_splits(listed, "label", SplitPlan(lists=paths))
    assert again.train.tolist() == split.train.tolist()

    with pytest.raises(RequestError, match="is in both"):
        plan_splits(listed, "label", SplitPlan(lists=(paths[0], paths[0])))
    with pytest.raises(RequestError, match="pairs"):
        plan_splits(listed, "label", SplitPlan(lists=paths[:1]))
    with pytest.raises(RequestError, match="cannot read the list"):
        plan_splits(listed, "label", SplitPlan(lists=(str(tmp_path / "none.txt"), paths[1])))
    (tmp_path / "other.txt").write_text("Swim/far.avi\n")
    with pytest.raises(RequestError, match="no clip of the list"):
        plan_splits(listed, "label", SplitPlan(lists=(paths[0], str(tmp_path / "other.txt"))))


def test_a_given_split_that_divides_a_group_warns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"label": "a", "group": "g1", "split": "train"}, {"label": "b", "group": "g1", "split": "test"}]
    plan_splits(index(rows), "label", SplitPlan())
    assert "both sides of split 'test', such as 'g1'" in capsys.readouterr().err


def test_shards_without_a_split_raise() -> None:
    with pytest.raises(RequestError, match="use folds"):
        plan_splits(GROUPED, "label", SplitPlan())


def test_the_default_is_the_column_split_or_else_folds() -> None:
    rows = [{"label": "ab"[n % 2], "group": f"g{n // 4}", "split": ("train", "test")[n % 2]} for n in range(40)]
    plan, line = default_plan(index(rows), "label", SplitPlan(None))
    assert (plan.folds, line) == (0, "")
    assert [split.name for split in plan_splits(index(rows), "label", SplitPlan(None))] == ["test"]
    # A value other than the defaults was set by the user, so a wrong one raises.
    with pytest.raises(RequestError, match="'tset'"):
        plan_splits(index(rows), "label", SplitPlan(None, test="tset"))
    plan, line = default_plan(index([row | {"split": "train"} for row in rows]), "label", SplitPlan(None))
    assert plan.folds == 5
    assert "no value test" in line
    plan, line = default_plan(GROUPED, "label", SplitPlan(None))
    assert plan.folds == 5
    assert "folds by 'group'" in line
    splits = plan_splits(GROUPED, "label", SplitPlan(None))
    assert len(splits) == 5
    assert all(not groups(split.train) & groups(split.test) for split in splits)


def test_the_default_number_of_folds_suits_the_clips() -> None:
    def folds(rows: list[dict[str, str]]) -> tuple[int | None, str]:
        plan, line = default_plan(index(rows), "label", SplitPlan(None))
        tested = np.concatenate([split.test for split in plan_splits(index(rows), "label", plan)])
        assert sorted(tested.tolist()) == list(range(len(rows)))
        return plan.folds, line

    by_clip = [{"label": "ab"[n % 2]} for n in range(20)]
    assert folds(by_clip)[0] == 5
    assert "by clip" in folds(by_clip)[1]
    assert folds(by_clip[:6])[0] == 3, "three clips in each class"
    assert folds([row | {"group": f"g{n // 10}"} for n, row in enumerate(by_clip)])[0] == 2, "two groups"
    one = [row | {"group": "g"} for row in by_clip]
    assert folds(one)[0] == 5
    assert "all have the same 'group'" in folds(one)[1]
    for given in (SplitPlan(0), SplitPlan(3), SplitPlan(None, leave_one_out=True), SplitPlan(None, lists=("a", "b"))):
        assert default_plan(GROUPED, "label", given) == (given, "")
