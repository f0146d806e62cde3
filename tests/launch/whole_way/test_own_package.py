"""A gate, an encoder and a task of another package: in configs, in bundles, on resume and in two processes."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import modalgate
import pytest
import yaml
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.launch.cli import main
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import latest_checkpoint
from modalgate.shards.errors import RequestError

from ...fusion.bundle.tensor_equality import same_tensors

GIVEN = Path(__file__).parents[1] / "given"
TASK = "ownlab.tasks:IsItDark"


@pytest.fixture
def ownlab(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the package importable without importing it."""
    monkeypatch.syspath_prepend(str(GIVEN))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "ownlab"]:
        del sys.modules[name]


@pytest.fixture
def own_config(tiny_config: str, tmp_path: Path) -> str:
    """The tiny config with a gate, an encoder and a task of `ownlab`."""
    content = yaml.safe_load(Path(tiny_config).read_text())
    content["model"] |= {"fusion": "ownlab.gates:FixedGate", "fusion_arguments": {"sharpness": 2.0}}
    content["model"]["encoders"]["rgb"] = {"model": "ownlab.nets:Pooled", "arguments": {"features": 5}}
    content["tasks"] = {TASK: {"arguments": {"scale": 3.0}, "begin": 0.0}, "cross_modal": {}}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_run_with_own_classes_resumes_and_its_bundle_needs_their_package(
    own_config: str, tmp_path: Path, ownlab: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"out": tmp_path, "name": "own", "train.steps": 4, f"tasks.{TASK}.weight": 0.5}
    done = modalgate.pretrain(own_config, settings=settings)
    assert 0 <= done.figures["IsItDark/accuracy"] <= 1
    assert yaml.safe_load((done.run / "config.yaml").read_text())["tasks"][TASK]["weight"] == 0.5
    longer = modalgate.pretrain(own_config, settings=settings | {"train.steps": 6}, resume=True)
    assert [line["step"] for line in read_metrics(longer.run)] == [1, 2, 3, 4, 5, 6]
    (folder,) = longer.encoders
    loaded = load_bundle(folder, allow=("ownlab",)).backbone
    assert type(loaded.fusion).__module__ == "ownlab.gates"
    assert loaded.fusion.sharpness == 2
    assert loaded.encoders["rgb"].features == 5
    assert "allow=('ownlab',)" in (folder / "README.md").read_text()
    with pytest.raises(RequestError, match=r"needs the class 'ownlab.gates:FixedGate'.*allow=\(\"ownlab\",\)"):
        load_bundle(folder)
    monkeypatch.setenv("MODALGATE_ALLOW", "other, ownlab")
    assert same_tensors(load_bundle(folder).backbone, loaded)


def test_own_classes_are_probed_finetuned_and_predicted_with(
    own_config: str, packed: Path, tmp_path: Path, ownlab: None
) -> None:
    (encoder,) = modalgate.pretrain(own_config, settings={"out": tmp_path, "name": "e", "train.steps": 2}).encoders
    split = {"train_split": "pretrain+train", "test_split": "test"}
    assert modalgate.probe(encoder, packed, workers=0, **split, allow=["ownlab"]).rows
    settings = {"out": tmp_path, "name": "c", "train.steps": 2, "data.split": "pretrain+train", "data.workers": 0}
    settings |= {"wandb": "disabled", "data.batch_size": 4}
    with pytest.raises(RequestError, match="needs the class 'ownlab"):
        modalgate.finetune(packed, encoder=encoder, settings=settings | {"name": "refused"})
    tuned = modalgate.finetune(packed, encoder=encoder, settings=settings, allow=["ownlab"])
    film = min((packed.parent / "world" / "video").rglob("*.mkv"))
    (piece,) = modalgate.predict(tuned.classifier, film, allow=["ownlab"])
    assert sum(piece.probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_missing_package_is_named_and_not_imported(
    own_config: str, tmp_path: Path, ownlab: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"out": tmp_path, "name": "own", "train.steps": 2}
    (folder,) = modalgate.pretrain(own_config, settings=settings).encoders
    for name in [name for name in sys.modules if name.partition(".")[0] == "ownlab"]:
        del sys.modules[name]
    with pytest.raises(RequestError, match="ownlab"):
        load_bundle(folder)
    assert "ownlab.gates" not in sys.modules
    sys.path.remove(str(GIVEN))
    with pytest.raises(RequestError, match=r"needs the class 'ownlab.gates:FixedGate': install the package 'ownlab'"):
        load_bundle(folder, allow=("ownlab",))
    with pytest.raises(RequestError, match=r"cannot import 'ownlab.*install the package 'ownlab'"):
        modalgate.pretrain(own_config, settings=settings | {"name": "other"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.fusion=ownlab.gates:FixdGate", "class in module 'ownlab.gates' 'FixdGate': did you mean 'FixedGate'"),
        ("model.fusion=ownlab.gates:NoGate", "'ownlab.gates:NoGate' is not a subclass of modalgate.fusion"),
        ("model.fusion_arguments={sharp: 1}", "fusion ownlab.gates:FixedGate 'sharp': did you mean 'sharpness'"),
        ("model.encoders.rgb.pretrained=true", "encoder 'ownlab.nets:Pooled' has no published weights"),
        (f"tasks.{TASK}.arguments={{scle: 1}}", f"task {TASK} 'scle': did you mean 'scale'"),
        (
            "model.fusion=ownlab.gate:FixedGate",
            "cannot import 'ownlab.gate:FixedGate'",
        ),
    ],
)
def test_invalid_class_or_argument_is_named(
    own_config: str, tmp_path: Path, ownlab: None, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    assert main(["pretrain", own_config, f"out={tmp_path}", "name=wrong", change]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


def test_config_verbs_accept_class_paths(own_config: str, ownlab: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", own_config]) == 0
    assert main(["config", "show", own_config]) == 0
    shown = capsys.readouterr().out
    assert "# Factor on the task's loss in the sum of losses." in shown.partition(f"{TASK}:")[2]


@pytest.mark.slow
def test_two_processes_train_own_classes(own_config: str, tmp_path: Path, launch: Callable[..., list[int]]) -> None:
    log = str(tmp_path / "log")
    arguments = ["pretrain", own_config, f"out={tmp_path}", "name=two", "train.steps=3"]
    done = launch(arguments, 2, script=str(GIVEN / "own_ranks.py"), log=log)
    assert done == [0, 0], Path(log).read_text()
    assert [line["step"] for line in read_metrics(tmp_path / "two")] == [1, 2, 3]
    assert latest_checkpoint(tmp_path / "two") is not None
