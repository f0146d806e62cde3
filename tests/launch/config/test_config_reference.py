"""The page of all keys: complete, and the checked-in one is current."""

from pathlib import Path

from modalgate.fusion.mechanisms_by_name import FUSIONS
from modalgate.launch.config.config_arguments import (
    FUSION_ARGUMENTS,
    FUSION_ARGUMENTS_OF,
    TASK_ARGUMENTS,
    TASK_ARGUMENTS_OF,
)
from modalgate.launch.config.config_keys import section_keys, sections
from modalgate.launch.config.config_reference import arguments_of, reference_page
from modalgate.launch.schema import KINDS
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "config.md"


def test_the_checked_in_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "run: modalgate config reference > docs/reference/config.md"
    )


def test_the_page_names_every_key_task_fusion_and_argument() -> None:
    page = reference_page()
    for schema in KINDS.values():
        for path, section in sections(schema):
            for key in section_keys(section):
                assert f".{key.name}` |" in page or f"| `{key.name}` |" in page, f"{path}.{key.name}"
    for name, kind in (PRETEXT_TASKS | FUSIONS).items():
        part = page.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        for argument in arguments_of(kind):
            assert f"| `{argument.name}` |" in part
    for text in ("task=violence", "task=multilabel", "task=action", "tasks.NAME=null", "EncoderSpec"):
        assert text in page


def test_every_argument_is_described_and_every_description_is_used() -> None:
    for kinds, common, own in (
        (PRETEXT_TASKS, TASK_ARGUMENTS, TASK_ARGUMENTS_OF),
        (FUSIONS, FUSION_ARGUMENTS, FUSION_ARGUMENTS_OF),
    ):
        there = {
            (name, entry.name)
            for name, kind in kinds.items()
            for entry in arguments_of(kind)
            if entry.name not in getattr(kind, "meanings", {})
        }
        assert set(own) <= there
        assert set(common) == {argument for name, argument in there if (name, argument) not in own}
        assert all(sentence.endswith(".") for sentence in (*common.values(), *own.values()))
