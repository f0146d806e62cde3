"""The list of unreadable recordings, and when it is too long."""

from pathlib import Path

import pytest
from modalgate.shards.errors import DataError
from modalgate.shards.packing.rejected import (
    Rejected,
    judge_rejected,
    list_rejected,
    printable,
    read_rejected,
)

TWO = [Rejected("a.mp4", "moov atom not found"), Rejected("b.mp4", "it is empty")]


def test_a_list_is_read_back_and_an_old_one_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    assert read_rejected(path) == []
    list_rejected(path, TWO)
    assert read_rejected(path) == TWO
    list_rejected(path, [])
    assert not path.exists()


@pytest.mark.parametrize(
    ("total", "most", "fails"), [(20, 0.1, False), (19, 0.1, True), (2, 1.0, True), (3, 1.0, False)]
)
def test_all_or_more_than_the_allowed_share_is_too_many(tmp_path: Path, total: int, most: float, fails: bool) -> None:
    if not fails:
        judge_rejected(TWO, total, most, tmp_path, "embedded")
        return
    with pytest.raises(DataError, match=rf"2 of {total} recordings cannot be embedded, the first 'a.mp4': moov"):
        judge_rejected(TWO, total, most, tmp_path, "embedded")


def test_none_is_never_too_many(tmp_path: Path) -> None:
    judge_rejected([], 0, 0.0, tmp_path, "packed")


def test_a_name_is_printable() -> None:
    assert printable("a\udcff.mp4") == "a\\udcff.mp4"
