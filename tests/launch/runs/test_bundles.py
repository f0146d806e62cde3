"""Pretraining with the splits of the evaluation: no encoder has seen its test clips."""

import os
import re
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.jobs import pretraining
from modalgate.launch.runs import bundles
from modalgate.launch.runs.bundles import (
    any_bundle,
    find_bundle,
    measured_bundle,
    split_bundle,
    steps_behind,
    undivided_bundle,
)
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, load_index, save_index
from modalgate.tasks.splits.split_plan import SplitPlan, plan_splits
from modalgate.tasks.splits.splits import Split, take
from numpy.typing import NDArray
from torch import nn

FOLDS = ["data.folds=2", "data.leaky=true"]
# Nothing moves: what a training ends with is what it began with.
STILL = ["train.steps=1", "train.learning_rate=0"]


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory, tiny_config: str) -> Path:
    """A run of two folds, each after two steps."""
    out = tmp_path_factory.mktemp("divided")
    assert main(["pretrain", tiny_config, *FOLDS, "train.steps=2", f"out={out}", "name=run"]) == 0
    return out / "run"


def same_parameters(first: nn.Module, second: nn.Module) -> bool:
    return all(map(torch.equal, first.parameters(), second.parameters()))


def splits_of(index: Index, **plan: Any) -> list[Split]:
    return plan_splits(index, "label", SplitPlan(folds=2, leaky=True, **plan))


def keys_of(index: Index, numbers: NDArray[np.int64]) -> set[str]:
    return {sample.key for sample in take(index, numbers).samples}


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The keys that each training was given."""
    found: list[set[str]] = []
    stream = pretraining.clip_stream

    def watched(index: Index, *more: Any, **named: Any) -> Any:
        found.append({sample.key for sample in index.samples})
        return stream(index, *more, **named)

    monkeypatch.setattr(pretraining, "clip_stream", watched)
    return found


def test_no_fold_sees_its_test_clips(tmp_path: Path, tiny_config: str, packed: Path, taught: list[set[str]]) -> None:
    command = ["pretrain", tiny_config, *FOLDS, f"out={tmp_path}", "name=run"]
    assert main([*command, "train.steps=1"]) == 0
    index = load_index(packed)
    splits = splits_of(index)
    assert [split.name for split in splits] == [
        folder.parent.name for folder in sorted(tmp_path.glob("run/*/encoder"))
    ]
    everything = {sample.key for sample in index.samples}
    for keys, split in zip(taught, splits, strict=True):
        assert keys == everything - keys_of(index, split.test)
    # A finished run is not changed unless more steps are requested.
    assert main([*command, "train.steps=1", "--resume"]) == 0
    assert len(taught) == 2
    assert main([*command, "train.steps=2", "--resume"]) == 0
    assert len(taught) == 4


def test_unlabelled_clips_train_unless_their_group_is_tested(
    tmp_path: Path, tiny_config: str, packed: Path, taught: list[set[str]]
) -> None:
    """Three clips lose their label: one in a separate group, and one in each tested group."""
    index = load_index(packed)
    bare = {sample.key: number for number, sample in enumerate(index.samples[:3])}
    samples = [
        replace(
            s, labels=s.labels | {"group": f"g{bare.get(s.key, n % 2)}"} | ({"label": ""} if s.key in bare else {})
        )
        for n, s in enumerate(index.samples)
    ]
    shards = tmp_path / "shards"
    shutil.copytree(packed, shards)
    save_index(replace(index, samples=tuple(samples)), shards)
    more = [f"data.shards={shards}", "train.steps=1", f"out={tmp_path}", "name=run", "data.leave_one_out=true"]
    assert main(["pretrain", tiny_config, *more]) == 0
    groups = {sample.key: sample.labels["group"] for sample in samples}
    assert len(taught) == 2
    for number, keys in enumerate(taught):
        assert keys == {key for key, group in groups.items() if group != f"g{number}"}
    told = load_bundle(tmp_path / "run" / "group-g1" / "encoder").provenance["data"]
    assert told == f"shards: {len(taught[1])} clips, without the test clips of group-g1"


def test_failed_run_does_not_occupy_the_name(
    tmp_path: Path, tiny_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", tiny_config, *FOLDS, f"out={tmp_path}", "name=run", "train.steps=1"]
    assert main([*command, "data.modalities=[audoi]"]) == 2
    assert "audoi" in capsys.readouterr().err
    assert main([*command, "train.accumulate=2"]) == 2
    assert not (tmp_path / "run").exists()


def test_bundles_are_found_in_run_folders(divided: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = load_index(packed)
    whole = divided / "fold-0"
    assert any_bundle(divided) == find_bundle(whole) == any_bundle(whole) == whole / "encoder"
    assert not capsys.readouterr().err
    assert find_bundle(divided) == whole / "encoder"
    (line,) = capsys.readouterr().err.splitlines()
    assert "using fold-0" in line
    with pytest.raises(RequestError, match=r"a model for each of its splits \(fold-0, fold-1\): give one"):
        measured_bundle(divided, index)
    first, second = (split_bundle(divided, index, split).backbone for split in splits_of(index))
    assert not same_parameters(first, second)
    assert same_parameters(second, load_bundle(divided / "fold-1" / "encoder").backbone)


def test_encoder_trained_on_a_test_clip_is_rejected(divided: Path, packed: Path) -> None:
    index = load_index(packed)
    _, second = splits_of(index)
    with pytest.raises(RequestError, match="has seen clips that fold-1 tests: give the folds"):
        split_bundle(divided / "fold-0", index, second)
    drawn = splits_of(index, seed=1)[0]
    with pytest.raises(RequestError, match="has seen clips that fold-0 tests"):
        split_bundle(divided, index, drawn)
    with pytest.raises(RequestError, match="the splits fold-0, fold-1, none for fold-2"):
        split_bundle(divided, index, replace(second, name="fold-2"))


@pytest.mark.slow
def test_fine_tuning_starts_each_fold_from_the_encoder_of_the_fold(divided: Path, packed: Path) -> None:
    more = [f"data.shards={packed}", f"out={divided.parent}", "name=tuned", "data.batch_size=4", "data.workers=0"]
    tuned = ["finetune", "surveillance-violence", f"encoder={divided}", "positive=contact", *FOLDS, *STILL, *more]
    assert main([*tuned, "data.segments=1", "wandb=disabled"]) == 0
    for fold in ("fold-0", "fold-1"):
        started = load_bundle(divided / fold / "encoder").backbone
        assert same_parameters(started, load_bundle(divided.parent / "tuned" / fold / "encoder").backbone)


@pytest.mark.slow
def test_study_starts_its_experts_from_fold_encoders(
    divided: Path, packed: Path, tiny_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = divided.parent / "study.yaml"
    model = Path(tiny_config).read_text().partition("model:")[2].partition("tasks:")[0]
    data = f"{{shards: {packed}, segments: 1, seconds: 0.8, frames: 4, size: 32, batch_size: 4, workers: 0}}"
    config.write_text(f"kind: study\nname: study\ndata: {data}\nmodel:{model}", encoding="utf-8")
    more = ["rows={static: {fusion: static}}", "noise=[]", "seeds=1", "jobs=1", f"out={divided.parent}", *FOLDS]
    more += ["experts.steps=1", "experts.learning_rate=0", "fusion.steps=1", "fusion_batch_size=4"]
    command = ["study", str(config), f"pretrained={divided}", *more]
    assert main(command) == 0
    for fold in ("fold-0", "fold-1"):
        started = load_bundle(divided / fold / "encoder").backbone
        for name in ("rgb", "audio"):
            expert = load_bundle(divided.parent / "study" / fold / "seed-0" / f"expert-{name}" / "encoder").backbone
            assert same_parameters(expert.encoders[name], started.encoders[name])
            assert same_parameters(expert.projections[name], started.projections[name])
    assert main([*command, "name=other", "model.width=16"]) == 2
    assert "the pretrained encoder of 'rgb' is" in capsys.readouterr().err


def test_printed_command_trains_the_encoder_of_all_clips(
    divided: Path, packed: Path, tmp_path: Path, tiny_config: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(divided, run)
    with pytest.raises(RequestError, match="none of all clips") as refused:
        undivided_bundle(run)
    command = re.findall(r"`modalgate (.*?)`", str(refused.value))[0]
    assert main([*shlex.split(command), "train.steps=1"]) == 0
    index = load_index(packed)
    assert f"{len(index.samples)} clips" in undivided_bundle(run).provenance["data"]
    assert find_bundle(run) == run / "final" / "encoder"
    # Evaluations start from the splits' own encoders as before.
    assert any_bundle(run) == run / "fold-0" / "encoder"
    first = split_bundle(run, index, splits_of(index)[0])
    assert same_parameters(first.backbone, load_bundle(divided / "fold-0" / "encoder").backbone)
    # The divided run can be resumed, also with another setting.
    again = ["pretrain", tiny_config, *FOLDS, f"out={tmp_path}", "name=run", "train.steps=2", "--resume"]
    assert main([*again, "train.weight_decay=0.1", "--accept", "train.weight_decay"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at its first step", "before its encoder is saved"])
def test_an_encoder_that_is_older_than_its_run_is_used_with_a_warning(
    when: str,
    tmp_path: Path,
    tiny_config: str,
    packed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    command = ["pretrain", tiny_config, f"out={tmp_path}", "name=run"]
    run, held = tmp_path / "run", ["--train-split", "pretrain+train"]
    assert main([*command, "train.steps=2"]) == 0
    assert main(["probe", str(run), str(packed), *held]) == 0
    assert steps_behind(run / "encoder") is None
    with monkeypatch.context() as patched:
        if when == "at its first step":
            forward = pretraining.PretextObjective.forward
            patched.setattr(
                pretraining.PretextObjective,
                "forward",
                lambda *given: (os.kill(os.getpid(), signal.SIGTERM), forward(*given))[1],
            )
        else:
            patched.setattr(pretraining, "save_bundle", stop)
        assert main([*command, "train.steps=4", "--resume"]) == 130
    capsys.readouterr()
    says = f"warning: '{run / 'encoder'}' is from step 2, but its training was resumed to reach step 4"
    for number, words in enumerate(
        (
            ["probe", str(run), str(packed), *held],
            ["export", str(run), str(tmp_path / "exported")],
            ["embed", str(run), str(packed), str(tmp_path / "features.npz")],
            ["finetune", str(packed), "--encoder", str(run), "train.steps=1", f"out={tmp_path}", "name=tuned"],
        )
    ):
        bundles._told.clear()
        assert main(words) in (0, 2), words
        assert capsys.readouterr().err.count(says) == 1, words
        assert number != 1 or "of step 2" in load_bundle(tmp_path / "exported").provenance["weights"]
    assert main([*command, "train.steps=4", "--resume"]) == 0
    bundles._told.clear()
    find_bundle(run)
    assert says not in capsys.readouterr().err
    assert steps_behind(run / "encoder") is None
