"""Label columns with several classes."""

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.labels import join_columns, label_candidates, label_column, label_values
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings


def index(*rows: dict[str, str]) -> Index:
    samples = tuple(Sample(f"c{n}", "s.tar", 1.0, row, {"rgb.mp4": (0, 1)}) for n, row in enumerate(rows))
    return Index(PackSettings(), {}, (), samples)


def test_classes_of_a_label() -> None:
    for text, values in (
        ("fight", ["fight"]),
        ("fight|shouting", ["fight", "shouting"]),
        ("a | b", ["a", "b"]),
        ("|", []),
        ("", []),
    ):
        assert label_values(text) == values


def test_columns_for_one_class_each_are_joined() -> None:
    rows = [("1", "0"), ("1", "1"), ("0", "0"), ("", "1")]
    joined, name = join_columns(index(*({"fight": f, "fall": g} for f, g in rows)), ["fight", "fall"])
    assert name == "fight+fall"
    # The third clip has no class. The fourth has a missing value.
    assert joined.column(name) == ["fight", "fight|fall", "|", ""]


def test_a_value_other_than_0_or_1_is_refused() -> None:
    with pytest.raises(RequestError, match="column 'fight' holds 'yes'"):
        join_columns(index({"fight": "yes"}), ["fight"])
    with pytest.raises(RequestError, match="fight"):
        join_columns(index({"fight": "1"}), ["fihgt"])


def test_the_label_column_is_the_one_that_can_hold_classes() -> None:
    def clips(**columns: str) -> Index:
        return index(*({name: values[n] for name, values in columns.items()} for n in range(6)))

    classes, names, alike = "ababab", "012345", "xxxxxx"
    assert label_column(clips(label=classes, room=classes)) == "label"
    assert label_column(clips(room=classes, file=names, place=alike, split=classes, group=classes)) == "room"
    assert label_column(clips(room=classes, label=names), "room") == "room"
    with pytest.raises(RequestError, match="choose one of room, colour") as told:
        label_column(clips(room=classes, colour=classes))
    assert "--label room" in str(told.value)
    assert "data.label=room" in str(told.value)
    with pytest.raises(RequestError, match="did you mean 'room'"):
        label_column(clips(room=classes), "rom")
    with pytest.raises(RequestError, match="no column of classes"):
        label_column(clips(file=names))
    with pytest.raises(RequestError, match="no labels"):
        label_column(index({}, {}))
    assert label_candidates(clips(room=classes, label=classes)) == ["label", "room"]
    assert label_candidates(clips(file=names)) == []
