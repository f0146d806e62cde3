"""The seal of a bundle detects every changed byte, and ignores formatting."""

import json
from pathlib import Path

import pytest
from modalgate.fusion.bundle.integrity import check_facts, check_files, seal
from modalgate.shards.errors import DataError


def test_only_content_changes_the_digest(tmp_path: Path) -> None:
    facts = seal({"b": [1, 2.5, None], "a": {"x": "é"}}, tmp_path, ())
    again = json.loads(json.dumps(dict(reversed(facts.items())), indent=4))
    check_facts(again, tmp_path / "encoder.json")
    again["a"]["x"] = "e"
    with pytest.raises(DataError, match=r"encoder.json' was changed after its export"):
        check_facts(again, tmp_path / "encoder.json")


def test_sealing_twice_is_sealing_once(tmp_path: Path) -> None:
    facts = seal({"a": 1}, tmp_path, ())
    assert seal(facts, tmp_path, ()) == facts


def test_every_byte_counts(tmp_path: Path) -> None:
    content = bytes(range(40))
    (tmp_path / "part").write_bytes(content)
    facts = seal({}, tmp_path, ("part",))
    check_files(facts, tmp_path)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "part").write_bytes(changed)
        with pytest.raises(DataError, match="part' has changed since its export"):
            check_files(facts, tmp_path)
    (tmp_path / "part").write_bytes(content + b"\0")
    with pytest.raises(DataError, match="part' has 41 bytes, not 40"):
        check_files(facts, tmp_path)
