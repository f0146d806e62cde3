"""Pretraining with an online probe: its log, and that it does not affect training."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import yaml
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.jobs.building import request_of
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import load_checkpoint
from modalgate.shards.batch import Batch
from modalgate.shards.index.table import load_index, save_index
from modalgate.ssl.objective import PretextObjective
from modalgate.tasks.probes.online_probe import OnlineProbe
from modalgate.tasks.splits.split_plan import SplitPlan
from safetensors.torch import save_file
from torch import Tensor

PROBE = ["probe.every=2", "probe.train=pretrain+train", "probe.test=test", "probe.neighbours=3"]


def pretrain(config: str, out: Path, name: str, *more: str) -> int:
    return main(["pretrain", config, f"out={out}", f"name={name}", "train.steps=5", *more])


def test_probe_is_logged_at_its_interval_and_after_the_last_step(
    tmp_path: Path, tiny_config: str, packed: Path
) -> None:
    assert pretrain(tiny_config, tmp_path, "watched", *PROBE) == 0
    assert pretrain(tiny_config, tmp_path, "alone") == 0
    probed = [line for line in read_metrics(tmp_path / "watched") if "probe/knn" in line]
    assert [line["step"] for line in probed] == [2, 4, 5]
    bundle = load_bundle(tmp_path / "watched" / "encoder")
    by_hand = OnlineProbe(
        bundle.backbone,
        bundle.spec,
        load_index(packed),
        request_of(bundle),
        4,
        0,
        "label",
        SplitPlan(train="pretrain+train", test="test"),
        3,
    )
    assert probed[-1] == {"step": 5, **by_hand(5)}, "of the averaged weights, which are those exported"
    first, second = (
        (tmp_path / name / "encoder" / "encoder.safetensors").read_bytes() for name in ("watched", "alone")
    )
    assert first == second, "who is watched learns the same"


def test_deterministic_runs_are_equal_and_record_their_seed(
    tmp_path: Path, tiny_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    forward = PretextObjective.forward

    def watched(objective: PretextObjective, batch: Batch) -> dict[str, Tensor]:
        asked.append(torch.are_deterministic_algorithms_enabled())
        return forward(objective, batch)

    monkeypatch.setattr(PretextObjective, "forward", watched)
    weights: dict[str, dict[str, Tensor]] = {}
    for name, *more in (("one", "seed=7"), ("two", "seed=7"), ("other", "seed=8")):
        assert pretrain(tiny_config, tmp_path, name, *more, "--deterministic") == 0
        settings = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert settings["train"]["deterministic"] is True
        assert settings["seed"] == int(more[0].removeprefix("seed="))
        _, weights[name], _ = load_checkpoint(tmp_path / name / "checkpoints" / "step-5")
    assert asked == [True] * 15
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(value, weights["two"][key]) for key, value in weights["one"].items())
    assert not all(torch.equal(value, weights["other"][key]) for key, value in weights["one"].items())


def test_probe_by_folds_needs_no_split(tmp_path: Path, tiny_config: str) -> None:
    assert pretrain(tiny_config, tmp_path, "folded", "probe={every: 5, folds: 2, test: nowhere}") == 0
    (line,) = (line for line in read_metrics(tmp_path / "folded") if "probe/knn" in line)
    assert 0 <= line["probe/knn"] <= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["probe.every=0"], "config key 'probe.every'"),
        (["probe.label=lable"], "unknown label column 'lable': did you mean 'label'?"),
        (["probe.evry=3"], "unknown config key 'probe.evry': did you mean 'probe.every'?"),
        (["probe.shards=nowhere"], "nowhere"),
    ],
)
def test_invalid_probe_is_rejected_before_the_run(
    more: list[str], message: str, tmp_path: Path, tiny_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(tiny_config, tmp_path, "run", *PROBE, *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_several_folders_of_shards_from_pretraining_to_robustness(
    tmp_path: Path, tiny_config: str, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(packed, other)
    both, clips = f"data.shards=[{packed},{other}]", len(load_index(packed).samples)
    assert pretrain(tiny_config, tmp_path, "both", both, "train.steps=2") == 0
    assert f"probe {tmp_path / 'both' / 'encoder'} {packed} {other}" in capsys.readouterr().out
    bundle = load_bundle(tmp_path / "both" / "encoder")
    assert bundle.provenance["data"] == f"{packed.name} + other: {2 * clips} clips"
    assert pretrain(tiny_config, tmp_path, "both", both, "train.steps=3", "--resume") == 0
    turned = f"data.shards=[{other},{packed}]"
    assert pretrain(tiny_config, tmp_path, "both", turned, "train.steps=4", "--resume") == 2
    capsys.readouterr()
    folders = [str(packed), str(other)]
    held = ["--train-split", "pretrain+train"]
    assert main(["probe", str(tmp_path / "both"), *folders, *held]) == 0
    path = tmp_path / "tuned.yaml"
    path.write_text(
        f"kind: finetune\nencoder: {tmp_path / 'both'}\nwandb: disabled\n"
        "data: {split: pretrain+train, where: {label: [contact, calm]}, segments: 1, batch_size: 4, workers: 0}\n"
        "train: {steps: 2, log_every: 1, threads: 1, precision: fp32}\n"
    )
    labels = sorted(set(load_index(packed).column("label")))
    where = f"data.where.label=[{','.join(labels)}]"
    assert main(["finetune", str(path), both, where, f"out={tmp_path}", "name=tuned"]) == 0
    measured = tmp_path / "robust.json"
    assert main(["robustness", str(tmp_path / "tuned"), *folders, "--axis", "noise", "--json", str(measured)]) == 0
    assert measured.is_file()


def test_more_shards_at_the_same_path_are_accepted_by_name(
    tmp_path: Path, tiny_config: str, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(packed, shards)
    place = f"data.shards={shards}"
    assert pretrain(tiny_config, tmp_path, "run", place, "train.steps=2") == 0
    assert pretrain(tiny_config, tmp_path, "run", place, "--resume", "--accept", "data.shards") == 2
    assert "unknown changed setting to --accept 'data.shards'" in capsys.readouterr().err
    index = load_index(shards)
    save_index(replace(index, shards=(*index.shards, replace(index.shards[0], sha256="0" * 64))), shards)
    assert pretrain(tiny_config, tmp_path, "run", place, "train.steps=3", "--resume") == 2
    assert "fingerprint was" in capsys.readouterr().err
    assert pretrain(tiny_config, tmp_path, "run", place, "train.steps=3", "--resume", "--accept", "data.shards") == 0
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["fingerprint"] == load_index(shards).fingerprint
    assert pretrain(tiny_config, tmp_path, "run", place, "train.steps=4", "--resume") == 0


def test_encoders_per_split_are_not_resumed_on_other_shards(
    tmp_path: Path, tiny_config: str, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(packed, shards)
    options = [f"data.shards={shards}", "train.steps=1", "data.folds=2"]
    assert pretrain(tiny_config, tmp_path, "run", *options) == 0
    shutil.rmtree(tmp_path / "run" / "fold-1" / "encoder")
    index = load_index(shards)
    save_index(replace(index, shards=(replace(index.shards[0], sha256="0" * 64), *index.shards[1:])), shards)
    capsys.readouterr()
    assert pretrain(tiny_config, tmp_path, "run", *options, "--resume") == 2
    assert "fingerprint was" in capsys.readouterr().err


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, tiny_config: str) -> Path:
    """An exported encoder of rgb and sound."""
    out = tmp_path_factory.mktemp("started")
    assert pretrain(tiny_config, out, "first", "train.steps=2") == 0
    assert main(["export", str(out / "first"), str(out / "exported")]) == 0
    return out / "exported"


@pytest.mark.slow
def test_pretraining_starts_from_an_exported_encoder_on_other_clips(
    tmp_path: Path, tiny_config: str, packed: Path, started: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(packed, other)
    index = load_index(other)
    save_index(replace(index, samples=index.samples[:12]), other)
    # Another network in the config is not used, and nothing moves: what it ends with is what it began with.
    still = ["train.steps=1", "train.learning_rate=0", "train.average=0", "model.width=16", f"data.shards={other}"]
    assert pretrain(tiny_config, tmp_path, "second", f"encoder={started}", *still) == 0
    first, second = (load_bundle(place) for place in (started, tmp_path / "second" / "encoder"))
    learned = dict(second.backbone.named_parameters())
    assert all(torch.equal(value, learned[name]) for name, value in first.backbone.named_parameters())
    assert second.spec.statistics == first.spec.statistics
    assert [line["step"] for line in read_metrics(tmp_path / "second")] == [1]
    told = f"started from 'exported' ({first.provenance['trained']}; {first.provenance['data']}; 2 steps)"
    assert second.provenance["encoder"] == told
    assert told in (tmp_path / "second" / "encoder" / "README.md").read_text()
    assert second.provenance["data"] == "other: 12 clips"
    settings = yaml.safe_load((tmp_path / "second" / "config.yaml").read_text())
    assert settings["model"]["width"] == 8
    assert settings["data"]["modalities"] == ["rgb", "audio"]
    # It trains, and resumes like any other.
    more = [f"encoder={started}", f"data.shards={other}"]
    assert pretrain(tiny_config, tmp_path, "third", *more, "train.steps=2", "data.folds=2", "data.leaky=true") == 0
    assert pretrain(tiny_config, tmp_path, "third", *more, "data.folds=2", "data.leaky=true", "--resume") == 0
    third = load_bundle(tmp_path / "third" / "fold-1" / "encoder")
    assert third.provenance["encoder"] == told
    assert third.provenance["steps"] == 5
    assert not torch.equal(third.backbone.fusion.network[0].weight, first.backbone.fusion.network[0].weight)  # pyright: ignore
    # Each fold of a run starts from its own.
    folds = [f"encoder={tmp_path / 'third'}", f"data.shards={other}", "data.folds=2", "data.leaky=true"]
    assert pretrain(tiny_config, tmp_path, "fourth", *folds, "train.steps=1") == 0
    for name in ("fold-0", "fold-1"):
        told = load_bundle(tmp_path / "fourth" / name / "encoder").provenance["encoder"]
        assert told.startswith("started from 'third' (")
        assert f"without the test clips of {name}" in told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["encoder=nowhere"], "'nowhere' is not a bundle"),
        (["encoder={started}", "data.modalities=[rgb]"], "has the modalities rgb, audio, not rgb"),
        (["encoder={started}", "data.where.label=contact", "data.shards={silent}"], "no clip of"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_before_the_run(
    more: list[str],
    message: str,
    tmp_path: Path,
    tiny_config: str,
    packed: Path,
    started: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    silent = tmp_path / "silent"
    shutil.copytree(packed, silent)
    index = load_index(silent)
    pictures = [replace(s, members={k: v for k, v in s.members.items() if "audio" not in k}) for s in index.samples]
    save_index(replace(index, samples=tuple(pictures)), silent)
    given = [word.replace("{started}", str(started)).replace("{silent}", str(silent)) for word in more]
    assert pretrain(tiny_config, tmp_path, "run", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


DOCUMENTED = next(
    line.split("'")[1]
    for line in (Path(__file__).parents[3] / "docs" / "guides" / "training" / "weights.md")
    .read_text(encoding="utf-8")
    .splitlines()
    if "modalgate pretrain" in line and "start.safetensors" in line
)


def test_the_documented_line_starts_from_a_file_of_timm(
    tmp_path: Path, tiny_config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    theirs = timm.create_model("test_resnet").state_dict()
    save_file(theirs, "start.safetensors")
    still = [DOCUMENTED, "train.learning_rate=0", "train.weight_decay=0", "train.average=0"]
    assert pretrain(tiny_config, tmp_path, "started", *still) == 0
    encoder = load_bundle(tmp_path / "started" / "encoder").backbone.encoders["rgb"]
    learned = dict(encoder.network.named_parameters())  # pyright: ignore
    assert learned
    assert all(torch.equal(value, theirs[key]) for key, value in learned.items())
    # The bundle needs the file no more, and a file of another network is refused in a line.
    Path("start.safetensors").unlink()
    assert load_bundle(tmp_path / "started" / "encoder")
    save_file(timm.create_model("test_vit").state_dict(), "start.safetensors")
    assert pretrain(tiny_config, tmp_path, "strange", *still) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert all(part in message for part in ("start.safetensors", "timm/test_resnet", "conv1.0.weight"))
    assert not (tmp_path / "strange" / "encoder").exists()
