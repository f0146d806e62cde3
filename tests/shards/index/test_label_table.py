"""Tables that people write: spreadsheets' habits are accepted, and every mistake is named by its line."""

from pathlib import Path

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.label_table import backslash_hint, read_table, read_text

KNOWN = ("video", "label", "group")
GOOD = "video,label\na.mp4,fight\nb.mp4,calm\n"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        " video , label\n a.mp4,  fight \nb.mp4 ,calm\t\n",
        "video,label,,\na.mp4,fight,,\nb.mp4,calm,,\n,,,\n",
        'video,label\n"a.mp4","fight"\nb.mp4,calm',
    ],
)
def test_the_same_table_in_other_clothes(tmp_path: Path, text: str) -> None:
    rows = read_table(write(tmp_path, text), "label file", KNOWN)
    assert rows == [(2, {"video": "a.mp4", "label": "fight"}), (3, {"video": "b.mp4", "label": "calm"})]


def test_lines_are_counted_with_empty_ones(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, "\nvideo,label\n\na.mp4,x\n,\nb.mp4,y\n"), "label file", KNOWN)
    assert [line for line, _ in rows] == [4, 6]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('video,label\na.mp4,"fight\nb.mp4,calm\n', r"line 2: not a CSV row .*: close the quote that opens there"),
        ('video,label\na.mp4,"fight\nb.mp4,calm"\n', r"line 2: a value holds a line break: close the quote"),
        ('video,label\na.mp4,x\nb.mp4,"fight\nc.mp4,"calm"\n', r"line 3: not a CSV row .*: close the quote"),
        (GOOD.replace(",", ";"), "separates its columns by semicolons: save it with commas"),
        (GOOD.replace(",", "\t"), "separates its columns by tabs: save it with commas"),
        (GOOD.encode("utf-16"), r"is UTF-16 and not UTF-8 text: save it as UTF-8"),
        (GOOD.encode("utf-16-le"), r"is UTF-16 and not UTF-8 text: save it as UTF-8"),
        (
            "video,label\ncafé.mp4,x\n".encode("latin-1"),
            r"is not UTF-8 text \(byte 0xe9 in line 2\): save it as UTF-8",
        ),
        ("Video,Label\na.mp4,x\n", "has a column 'Video': write 'video'"),
        ("video,label,Group\na.mp4,x,g\n", "has a column 'Group': write 'group'"),
        ("video,label,label\na.mp4,x,y\n", "has two columns 'label': rename or remove one"),
        ("video,label,\na.mp4,x,y\n", "column 3 has values and no name"),
        ("video,label\na,b.mp4,x\n", r"line 2: it does not have as many fields as the header \(3 and 2\)"),
        ("", "is empty"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        read_table(write(tmp_path, content), "label file", KNOWN)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_are_read_alike(tmp_path: Path) -> None:
    assert read_text(write(tmp_path, "\ufeffa.mp4\n"), "list") == "a.mp4\n"
    with pytest.raises(RequestError, match=r"list '.*' is UTF-16"):
        read_text(write(tmp_path, "a.mp4".encode("utf-16")), "list")
    with pytest.raises(RequestError, match=r"cannot read the list '.*' \(No such file"):
        read_text(tmp_path / "none.txt", "list")


def test_windows_paths_get_a_hint() -> None:
    assert backslash_hint(["a.mp4", "video\\b.mp4"]) == ": write paths with / and not with \\"
    assert backslash_hint(["video/b.mp4"]) == ""
