"""A pretraining that is divided as the evaluation after it: no encoder has seen what it is tested on."""

import json
from pathlib import Path

import pytest
import torch
from modalgate.fusion.bundle import load_bundle
from modalgate.launch import pretraining
from modalgate.launch.cli import main
from modalgate.launch.run_bundles import any_bundle, find_bundle, split_bundle
from modalgate.shards.index import Index, load_index
from modalgate.tasks.split_plan import SplitPlan, plan_splits
from modalgate.tasks.splits import labelled, take
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


def test_no_fold_sees_its_test_clips(
    tmp_path: Path, tiny_config: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[set[str]] = []
    stream = pretraining.clip_stream

    def watched(index: Index, *more: object, **named: object) -> object:
        taught.append({sample.key for sample in index.samples})
        return stream(index, *more, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(pretraining, "clip_stream", watched)
    command = ["pretrain", tiny_config, *FOLDS, "train.steps=1", f"out={tmp_path}", "name=run"]
    assert main(command) == 0
    index, _, _ = labelled(load_index(packed), "label")
    splits = plan_splits(index, "label", SplitPlan(folds=2, leaky=True))
    assert [split.name for split in splits] == [
        folder.parent.name for folder in sorted(tmp_path.glob("run/*/encoder"))
    ]
    for keys, split in zip(taught, splits, strict=True):
        tested = {sample.key for sample in take(index, split.test).samples}
        assert not keys & tested
        assert keys == {sample.key for sample in load_index(packed).samples} - tested
    # What is finished is left as it is.
    assert main([*command, "--resume"]) == 0
    assert len(taught) == 2


def test_clips_without_a_label_teach_in_every_fold(tmp_path: Path, tiny_config: str, packed: Path) -> None:
    index = load_index(packed)
    bare = [sample.key for sample in index.samples[:3]]
    content = json.loads((packed / "index.json").read_text())
    for entry in content["samples"]:
        if entry["key"] in bare:
            entry["labels"]["label"] = ""
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in packed.glob("*.tar"):
        (shards / shard.name).symlink_to(shard)
    (shards / "index.json").write_text(json.dumps(content))
    more = [f"data.shards={shards}", "train.steps=1", f"out={tmp_path}", "name=run"]
    assert main(["pretrain", tiny_config, *FOLDS, *more]) == 0
    told = [load_bundle(split_bundle(tmp_path / "run", f"fold-{fold}")).provenance["data"] for fold in (0, 1)]
    count = len(index.samples)
    assert sum(int(line.split(": ")[1].split(" clips")[0]) for line in told) == (count - 3) + 2 * 3
    assert "without the test clips of fold-1" in told[1]


def test_where_the_bundles_lie(divided: Path) -> None:
    assert split_bundle(divided, "fold-1") == divided / "fold-1" / "encoder"
    assert any_bundle(divided) == divided / "fold-0" / "encoder"
    whole = divided / "fold-0"
    assert find_bundle(whole) == any_bundle(whole) == split_bundle(whole, "fold-1") == whole / "encoder"
    first, second = (load_bundle(split_bundle(divided, f"fold-{fold}")).backbone for fold in (0, 1))
    assert not same_parameters(first, second)


@pytest.mark.slow
def test_fine_tuning_starts_each_fold_from_its_own(divided: Path, packed: Path) -> None:
    more = [f"data.shards={packed}", f"out={divided.parent}", "name=tuned", "data.batch_size=4", "data.workers=0"]
    tuned = ["finetune", "surveillance-violence", f"encoder={divided}", "positive=contact", *FOLDS, *STILL, *more]
    assert main([*tuned, "data.segments=1", "wandb=disabled"]) == 0
    for fold in ("fold-0", "fold-1"):
        started = load_bundle(divided / fold / "encoder").backbone
        assert same_parameters(started, load_bundle(divided.parent / "tuned" / fold / "encoder").backbone)


@pytest.mark.slow
def test_a_study_starts_its_experts_from_them(
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
