"""Credentials of URLs are masked anywhere in a text."""

from modalgate.shards.index.location import Remote
from modalgate.shards.media.credentials import masked, masked_values


def test_user_and_password_are_masked_and_nothing_else() -> None:
    for text, expected in (
        ("https://user:secret@host/shards", "https://***@host/shards"),
        ("https://token@host", "https://***@host"),
        ("cannot read 'http://a:p@ss@host:8000/x': 401", "cannot read 'http://***@host:8000/x': 401"),
        ("s3://bucket/a@b and https://u:p@h/", "s3://bucket/a@b and https://***@h/"),
        ("mail me@home, at /a/b", "mail me@home, at /a/b"),
    ):
        assert masked(text) == expected


def test_nested_values_and_locations() -> None:
    settings = {"data": {"shards": "https://u:p@h/s", "lists": ["ftp://u@h"], "size": 3}, "none": None}
    assert masked_values(settings) == {
        "data": {"shards": "https://***@h/s", "lists": ["ftp://***@h"], "size": 3},
        "none": None,
    }
    remote = Remote("https://u:p@host")
    assert (str(remote), remote.name) == ("https://***@host", "***@host")
    assert remote.url == "https://u:p@host"
