"""Configs on clips that lack modalities: dropped parts, messages, and complete runs."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.recipe import set_up
from modalgate.launch.jobs.adapting import adapt_modalities
from modalgate.launch.schema import FinetuneConfig, PretrainConfig, StudyConfig
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, load_index, save_index
from modalgate.shards.modality import modality
from modalgate.shards.stream import ClipStream
from modalgate.tasks.evaluation.scores import score_clips

Reduced = Callable[..., Path]


def without(index: Index, names: Sequence[str], keys: Sequence[str] | None = None) -> Index:
    """The index as if its clips, or those of `keys`, had been packed from sources without these modalities."""
    gone = {modality(name).suffix for name in names}
    samples = [
        replace(sample, members={s: place for s, place in sample.members.items() if s not in gone})
        if keys is None or sample.key in keys
        else sample
        for sample in index.samples
    ]
    if keys is not None:
        return replace(index, samples=tuple(samples))
    shards = [replace(shard, present=shard.present | dict.fromkeys(names, 0)) for shard in index.shards]
    statistics = {name: entry for name, entry in index.statistics.items() if name not in names}
    return replace(index, samples=tuple(samples), shards=tuple(shards), statistics=statistics)


@pytest.fixture
def reduced(tmp_path: Path) -> Reduced:
    """`reduced(shards, names)`: a copy of the shards whose clips lack these modalities."""

    def build(shards: Path, names: Sequence[str]) -> Path:
        folder = tmp_path / f"without-{'-'.join(names)}"
        shutil.copytree(shards, folder)
        save_index(without(load_index(folder), names), folder)
        return folder

    return build


def shipped(name: str, *settings: str) -> PretrainConfig:
    config = load_config("pretrain", name, ["data.shards=shards", *settings])
    assert isinstance(config, PretrainConfig)
    return config


def test_tasks_and_modalities_without_sound(corpus: Path) -> None:
    index = without(load_index(corpus / "shards"), ["audio"])
    config, lines = adapt_modalities(shipped("study-surveillance-pretrain"), index)
    assert config.data.modalities == ["rgb", "flow"]
    assert list(config.tasks) == ["correspondence", "clip_order", "cross_modal", "across_time"]
    assert config.tasks["across_time"].arguments["streams"] == ["flow"]
    assert lines == [f"'audio' is in no clip of '{index.folder}': dropped"]
    assert adapt_modalities(config, index) == (config, [])


def test_tasks_with_too_few_modalities_are_dropped(corpus: Path) -> None:
    index = without(load_index(corpus / "shards"), ["audio", "flow", "depth"])
    config, lines = adapt_modalities(shipped("study-surveillance-pretrain"), index)
    assert config.data.modalities == ["rgb"]
    assert list(config.tasks) == ["clip_order"]
    assert config.tasks["clip_order"].arguments == {"streams": ["fused", "rgb"], "dropout": 0.2}
    assert len(lines) == 2 + 3
    for name in ("correspondence", "cross_modal", "across_time"):
        assert sum(f"'{name}' is dropped" in line for line in lines) == 1


def test_missing_modalities_and_streams_are_dropped(corpus: Path) -> None:
    """Without `data.modalities` too, streams of a task may name what is not there, or not read."""
    index = without(load_index(corpus / "shards"), ["audio"])
    config, lines = adapt_modalities(shipped("study-surveillance-pretrain", "data.modalities=[]"), index)
    assert config.data.modalities == []
    assert config.tasks["across_time"].arguments["streams"] == ["flow"]
    assert len(lines) == 1
    config, lines = adapt_modalities(shipped("study-surveillance-pretrain", "data.modalities=[rgb,depth]"), index)
    assert list(config.tasks) == ["correspondence", "clip_order", "cross_modal"]
    assert sum("'flow', which is not in data.modalities" in line for line in lines) == 2


def test_modality_of_other_clips_only_is_dropped(corpus: Path) -> None:
    """Only the modalities of the used clips count."""
    whole = load_index(corpus / "shards")
    silent = [sample.key for sample in whole.samples[:8]]
    index = without(whole, ["audio"], silent).keep(silent)
    config, lines = adapt_modalities(shipped("demo-pretrain", "data.modalities=[]"), index)
    assert config.data.modalities == ["rgb", "flow", "depth"]
    assert len(lines) == 1


def test_error_names_the_clips_if_no_modality_remains(corpus: Path) -> None:
    index = without(load_index(corpus / "shards"), ["audio", "flow", "depth"])
    with pytest.raises(RequestError, match=r"cross_modal, offset .* rgb"):
        adapt_modalities(shipped("talking-face-pretrain"), index)
    with pytest.raises(RequestError, match="they have rgb"):
        adapt_modalities(shipped("study-surveillance-pretrain", "data.modalities=[flow,audio]"), index)


def test_typed_modality_that_was_never_packed_is_rejected(corpus: Path) -> None:
    index = load_index(corpus / "shards")
    asked = "data.modalities=[rgb,inertial]"
    with pytest.raises(RequestError, match="unknown modality in these shards 'inertial'"):
        adapt_modalities(shipped("demo-pretrain", asked), index, ["modalgate", "pretrain", "demo-pretrain", asked])
    config, lines = adapt_modalities(shipped("demo-pretrain", asked), index)
    assert config.data.modalities == ["rgb"]
    assert len(lines) >= 1
    # Asked for when packing, and found nowhere: that is the sources' doing.
    silent, asked = without(index, ["audio"]), "data.modalities=[rgb,audio]"
    config, _ = adapt_modalities(shipped("study-surveillance-pretrain", asked), silent, ["modalgate", asked])
    assert config.data.modalities == ["rgb"]


def test_other_kinds_of_configs(corpus: Path) -> None:
    index = without(load_index(corpus / "shards"), ["audio"])
    tuned = load_config("finetune", "surveillance-violence", ["data.shards=shards"])
    assert isinstance(tuned, FinetuneConfig)
    assert adapt_modalities(tuned, index)[0].data.modalities == ["rgb", "flow"]
    started = replace(tuned, encoder="runs/x")
    assert adapt_modalities(started, index) == (started, [])
    study = load_config("study", "study-impact12", ["data.shards=shards"])
    assert isinstance(study, StudyConfig)
    assert adapt_modalities(study, index)[0].data.modalities == ["rgb", "flow", "depth"]


def test_run_on_silent_clips_resumes_with_accept(
    tiny_config: str, packed: Path, reduced: Reduced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = reduced(packed, ["audio"])
    command = ["pretrain", tiny_config, f"data.shards={silent}", "data.modalities=[rgb,audio]", f"out={tmp_path}"]
    command += ["name=run"]
    assert main([*command, "train.steps=2"]) == 0
    said = capsys.readouterr().err
    assert said.count("'audio' is in no clip") == 1
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (recorded["data"]["modalities"], list(recorded["tasks"])) == (["rgb"], ["clip_order"])
    assert load_bundle(tmp_path / "run" / "encoder").backbone.modalities == ("rgb",)
    assert main([*command, "train.steps=3", "--resume"]) == 0
    rate = ["train.learning_rate=0.01", "train.steps=4"]
    assert main([*command, *rate, "--resume"]) == 2
    assert "learning_rate was" in capsys.readouterr().err
    assert main([*command, *rate, "--resume", "--accept", "train.learning_rate"]) == 0


def test_online_probe_works_on_clips_without_a_modality(
    tiny_config: str, packed: Path, reduced: Reduced, tmp_path: Path
) -> None:
    silent = reduced(packed, ["audio"])
    probe = [f"probe.shards={silent}", "probe.every=2", "probe.train=pretrain+train", "probe.test=test"]
    assert main(["pretrain", tiny_config, f"out={tmp_path}", "name=run", "train.steps=2", *probe]) == 0


def test_finetuning_from_an_encoder_with_more_modalities(
    tiny_config: str, packed: Path, reduced: Reduced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It scores the silent clips as the whole model does where sound is masked."""
    assert main(["pretrain", tiny_config, f"out={tmp_path}", "name=both", "train.steps=2"]) == 0
    silent, run = reduced(packed, ["audio"]), tmp_path / "tuned"
    path = tmp_path / "tuned.yaml"
    path.write_text(
        f"kind: finetune\nencoder: {tmp_path / 'both'}\nunimodal_weight: 0.5\nwandb: disabled\n"
        f"data: {{shards: {silent}, split: pretrain+train, segments: 1, batch_size: 4, workers: 0}}\n"
        "train: {steps: 2, log_every: 1, threads: 1, precision: fp32}\n"
    )
    assert main(["finetune", str(path), f"out={tmp_path}", "name=tuned"]) == 0
    assert "'audio' of the encoder is in no clip" in capsys.readouterr().err
    bundle = load_bundle(run / "encoder")
    assert bundle.backbone.modalities == ("rgb", "audio")
    config = load_config("finetune", str(run))
    assert isinstance(config, FinetuneConfig)
    recipe = set_up(config, [])
    assert recipe.request.modalities == ("rgb",)
    model: Any = bundle.model
    stream = ClipStream(recipe.index, recipe.request, 4, **recipe.told)
    found = score_clips(model, bundle.spec, stream)
    # The sounding clips, whose sound the model is not shown.
    keys = [sample.key for sample in recipe.index.samples]
    heard = ClipStream(load_index(packed).keep(keys), replace(recipe.request, modalities=("rgb",)), 4, **recipe.told)
    masked = score_clips(model, bundle.spec, heard)
    torch.testing.assert_close(torch.from_numpy(found.probabilities), torch.from_numpy(masked.probabilities))
    assert found.weights.shape == (len(keys), 2)
    assert not found.weights[:, 1].any()


def test_a_study_drops_corruptions_of_modalities_that_are_not_used(corpus: Path) -> None:
    index = without(load_index(corpus / "shards"), ["audio"])
    axes = "held_out={drop: 0.8, snr: 0, typo: 1}"
    config = load_config("study", "study-surveillance", ["data.shards=shards", axes])
    assert isinstance(config, StudyConfig)
    kept, lines = adapt_modalities(config, index)
    # An unknown one is left to be refused.
    assert "drop" in kept.held_out
    assert "typo" in kept.held_out
    assert "snr" not in kept.held_out
    assert "held_out 'snr' is dropped: no modality of this run has it" in lines


def test_a_study_drops_rows_of_a_modality_that_is_not_used(corpus: Path) -> None:
    index = without(load_index(corpus / "shards"), ["audio"])
    rows = "rows={fused: {fusion: concat}, large: {fusion: concat, alone: audio}}"
    config = load_config("study", "study-surveillance", ["data.shards=shards", rows])
    assert isinstance(config, StudyConfig)
    kept, lines = adapt_modalities(config, index)
    assert "fused" in kept.rows
    assert "large" not in kept.rows
    assert lines[-1] == "row 'large' is dropped: its only modality 'audio' is not used"
    # A study without rows would compare every mechanism.
    config = replace(config, rows={"large": config.rows["large"]})
    assert list(adapt_modalities(config, index)[0].rows) == ["large"]
