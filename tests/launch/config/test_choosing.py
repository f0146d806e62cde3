"""A config over settings chosen from its shards: clips, label column, encoder."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.config.choosing import with_choices
from modalgate.launch.config.load import load_config
from modalgate.launch.schema import FinetuneConfig, PretrainConfig
from modalgate.shards.index.table import load_index, save_index


def relabelled(packed: Path, folder: Path, **columns: list[str]) -> Path:
    """A copy of the shards with just these label columns, their values repeated over the clips."""
    shutil.copytree(packed, folder)
    index = load_index(folder)
    samples = tuple(
        replace(sample, labels={name: values[number % len(values)] for name, values in columns.items()})
        for number, sample in enumerate(index.samples)
    )
    save_index(replace(index, samples=samples), folder)
    return folder


def test_config_overrides_chosen_settings(packed: Path) -> None:
    content, choices = with_choices("pretrain", {"data": {"shards": str(packed), "segments": 2}})
    assert content["data"]["segments"] == 2
    assert content["data"]["frames"] % 8 == 0
    assert "data.segments" not in {choice.key for choice in choices}


def test_studies_and_absent_shards_choose_nothing(packed: Path, tmp_path: Path) -> None:
    for kind, shards in (("study", packed), ("pretrain", tmp_path / "absent")):
        content = {"data": {"shards": str(shards)}}
        assert with_choices(kind, content) == (content, [])


def test_shards_alone_give_a_complete_config(packed: Path) -> None:
    pretraining = load_config("pretrain", None, [f"data.shards={packed}"])
    assert isinstance(pretraining, PretrainConfig)
    assert set(pretraining.tasks) == {"across_time", "leave_one_out"}
    finetuning = load_config("finetune", None, [f"data.shards={packed}"])
    assert isinstance(finetuning, FinetuneConfig)
    assert finetuning.model is not None
    assert load_config("finetune", None, [f"data.shards={packed}", "data.seconds=0.5"]).data.seconds == 0.5


def test_all_steps_work_without_a_config(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The windows of fine-tuning are longer than those of the encoder it starts from."""
    few = [f"out={tmp_path}", "data.batch_size=4", "data.workers=0", "wandb=disabled", "train.steps=2"]
    assert main(["pretrain", str(packed), *few]) == 0
    printed = capsys.readouterr().out
    assert "data.seconds" in printed
    assert "across_time, leave_one_out" in printed
    assert main(["finetune", str(packed), "--encoder", str(tmp_path / "pretrain"), *few]) == 0
    encoder, classifier = (load_bundle(tmp_path / name / "encoder") for name in ("pretrain", "finetune"))
    assert classifier.spec.seconds > 2 * encoder.spec.seconds
    speeds = [bundle.spec.frames / bundle.spec.seconds for bundle in (encoder, classifier)]
    assert speeds[0] == pytest.approx(speeds[1], rel=0.01)
    assert classifier.segments == 1
    assert main(["probe", str(tmp_path / "pretrain"), str(packed), "--workers", "0"]) == 0


def test_folder_without_shards_or_run_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(tmp_path)]) == 2
    assert "neither shards nor a run" in capsys.readouterr().err
    assert main(["finetune", "data.shards=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_given_label_and_class(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = relabelled(packed, tmp_path / "shards", kind=["fall", "no_fall"])
    few = [
        f"out={tmp_path}",
        "data.batch_size=4",
        "data.workers=0",
        "wandb=disabled",
        "train.steps=1",
        "data.folds=2",
    ]
    assert main(["finetune", str(shards), "--label", "knd", *few]) == 2
    assert "did you mean 'kind'" in capsys.readouterr().err
    assert main(["finetune", str(shards), "--positive", "no_fall", *few]) == 0
    printed = capsys.readouterr().out
    assert "data.label" in printed
    assert "auc" in printed
