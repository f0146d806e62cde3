"""Descriptions of config fields, and the comments of `config show`."""

from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import pytest
import yaml
from modalgate.fusion.spec import EncoderSpec
from modalgate.launch.config.config_keys import explained, known_keys, meanings, section_keys, sections
from modalgate.launch.config.load import list_configs, show_config
from modalgate.launch.schema import KINDS, DataConfig, TaskConfig, TrainConfig

ALL = {section for schema in KINDS.values() for _, section in sections(schema)}


@dataclass
class Base:
    """A section of the test."""

    size: int = field(default=3, metadata={"range": (1, 9)})
    """How big it is."""
    bare: float = 0.5


@dataclass
class Sample(Base):
    """A section that contains another."""

    mode: str = field(default="a", metadata={"choices": ("a", "b")})
    """Which
    of two."""
    parts: dict[str, Base] = field(default_factory=dict)
    """Its parts."""
    free: dict[str, Any] = field(default_factory=dict)
    """Anything."""
    below: Base | None = None
    """Another."""

    def method(self) -> str:
        """Not a key's."""
        return self.mode


def test_every_key_is_described() -> None:
    for section in sorted(ALL, key=lambda section: section.__name__):
        for key in section_keys(section):
            assert key.meaning.endswith("."), f"{section.__name__}.{key.name} has no attribute docstring"
            assert len(key.meaning) < 200, f"{section.__name__}.{key.name}: one or two short sentences"
            assert key.values


def test_sections_reach_every_dataclass_of_every_verb() -> None:
    assert {EncoderSpec, TaskConfig, TrainConfig, DataConfig} <= ALL
    paths = dict(sections(KINDS["study"]))
    assert paths["rows.NAME.aids"] is dict(sections(KINDS["finetune"]))["aids"]
    assert paths["model.encoders.NAME"] is EncoderSpec
    assert "data.shards" in known_keys(KINDS["study"])


def test_meanings_come_from_field_docstrings_also_of_base_classes() -> None:
    assert meanings(Sample) == {
        "size": "How big it is.",
        "mode": "Which of two.",
        "parts": "Its parts.",
        "free": "Anything.",
        "below": "Another.",
    }


def test_a_key_states_default_and_values() -> None:
    keys = {key.name: key for key in section_keys(Sample)}
    assert (keys["size"].default, keys["size"].values) == ("3", "whole number, from 1 to 9")
    assert (keys["mode"].default, keys["mode"].values) == ("a", "a, b")
    assert (keys["below"].default, keys["below"].values) == ("null", "section, or null")
    assert (keys["parts"].default, keys["parts"].values) == ("{}", "sections by name")
    assert {key.name: key.default for key in section_keys(DataConfig)}["shards"] == "required"
    assert {key.name: key.default for key in section_keys(TrainConfig)}["learning_rate"] == "0.001"


def test_comments_are_above_their_keys_only() -> None:
    text = (
        "size: 3\nbare: 0.5\nmode: a\nparts:\n  one:\n    size: 2\n"
        "free:\n  size: 1\n  deep:\n  - size: 2\n    mode: x\n  text: |\n    size: no key\nbelow: null\n"
    )
    found = explained(text, Sample)
    assert yaml.safe_load(found) == yaml.safe_load(text)
    assert [line for line in found.splitlines() if line and not line.lstrip().startswith("#")] == text.splitlines()
    assert found.startswith(
        "# How big it is. From 1 to 9.\nsize: 3\nbare: 0.5\n# Which of two. One of a, b.\nmode: a\n"
    )
    assert "  # A section of the test.\n  one:\n    # How big it is. From 1 to 9.\n    size: 2\n" in found
    assert "\n# Anything.\nfree:\n  size: 1\n  deep:\n" in found
    assert "# Another. Keys: size, bare.\nbelow: null\n" in found
    assert "# Its parts. Keys of an entry: size, bare.\nparts: {}" in explained("parts: {}\n", Sample)


@pytest.mark.parametrize("name", ["demo-pretrain", "demo-violence", "study-surveillance"])
def test_every_key_of_a_shipped_config_is_explained_within_80_columns(name: str) -> None:
    kind = next(kind for shipped, kind, _ in list_configs() if shipped == name)
    lines = show_config(name).splitlines()
    assert all(len(line) <= 80 for line in lines if line.lstrip().startswith("#"))
    above = list(pairwise(lines))
    for key in fields(KINDS[kind]):
        (comment,) = (comment for comment, line in above if line.startswith(f"{key.name}:"))
        assert comment.startswith("# ")
    below = lines[lines.index("data:") + 1 : lines.index("augment:")]
    for key in section_keys(DataConfig):
        (comment,) = (comment for comment, line in pairwise(below) if line.startswith(f"  {key.name}:"))
        assert comment.startswith("  # ")
    if kind == "pretrain":
        # An entry of a mapping explains its fields too.
        tasks = "\n".join(lines).partition("\ntasks:\n")[2]
        for name, meaning in meanings(TaskConfig).items():
            assert f"    # {meaning.split('. ')[0]}" in tasks, name
