"""The page of all keys: complete, and the checked-in one is current."""

from pathlib import Path

import pytest
from modalgate.fusion.mechanisms_by_name import FUSIONS
from modalgate.launch.cli import main
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


def test_own_classes_are_listed_with_their_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = reference_page()
    for key in ("tasks.NAME", "model.fusion", "rows.NAME.fusion", "decision", "model.encoders.NAME.model"):
        assert f"| `{key}`" in page.partition("## Your own classes")[2]
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "given"))
    classes = ["ownlab.tasks:IsItDark", "ownlab.gates:FixedGate", "ownlab.nets:Pooled"]
    assert main(["config", "reference", *classes]) == 0
    task, gate, net = capsys.readouterr().out.split("### ")[1:]
    assert task.startswith(
        "`ownlab.tasks:IsItDark`\n\nSays whether the picture was dimmed. Pretext task. Takes one or"
    )
    assert "| `scale` | `1.0` |" in task
    assert "Fusion. Level: `feature`." in gate
    assert "| `sharpness` | `1.0` |" in gate
    assert "Encoder." in net
    assert "| `features` | `6` |" in net
    assert "`modality`" not in net
    assert main(["config", "reference", "ownlab.gates:NoGate"]) == 2
    assert main(["config", "reference", "ownlab.gates:MyGate"]) == 2
    assert "unknown class in module 'ownlab.gates' 'MyGate'" in capsys.readouterr().err
