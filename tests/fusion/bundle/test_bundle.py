"""The exported bundle: loaded in a new process, and damaged in every way."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone, encoder_spec
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.bundle.bundle_files import CARD, FACTS, WEIGHTS
from modalgate.fusion.bundle.embedder import load_encoder
from modalgate.fusion.bundle.integrity import seal
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import clip_application, default_application
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.transforms import Preparation
from safetensors.torch import load_file, save_file
from torch import Tensor

from .tensor_equality import same_tensors

# Absent rows are among the inputs, so the learned vectors count too.
FRESH = """
import sys
from modalgate.fusion import load_bundle
from safetensors.torch import load_file, save_file

folder, inputs, outputs = sys.argv[1:]
bundle = load_bundle(folder)
tensors = load_file(inputs)
names = bundle.backbone.modalities
scored = bundle.model(
    {name: tensors["stream." + name] for name in names},
    {name: tensors["present." + name] for name in names},
    tensors["start"],
)
save_file({"logits": scored.logits.detach(), "embedding": scored.encoded.embedding.detach()}, outputs)
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("modalgate.")}
print(*sorted(rooms), *bundle.model.classes, bundle.spec.seconds, bundle.segments, bundle.positive, sep=" ")
"""


@pytest.fixture
def bundle(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> Bundle:
    classifier = Classifier(tiny_backbone(modality_dropout=0.5), ["calm", "fight"], unimodal=True).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Bundle(classifier, tiny_clip, 3, "violence", "fight", {"steps": 7}, {"auc": 0.875}, "CC-BY-4.0")


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "encoder"
    save_bundle(bundle, path)
    return path


@pytest.mark.slow
def test_a_new_process_computes_the_same_from_the_folder_alone(
    bundle: Bundle, folder: Path, tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    batch = tiny_batch(absent={("audio", 0), ("audio", 1), ("rgb", 1)})
    streams = Preparation(tiny_clip)(batch)
    tensors: dict[str, Tensor] = {f"stream.{name}": stream.contiguous() for name, stream in streams.items()}
    tensors |= {f"present.{name}": mask for name, mask in batch.present.items()} | {"start": batch.start.contiguous()}
    save_file(tensors, tmp_path / "inputs.safetensors")
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-c", FRESH, moved, tmp_path / "inputs.safetensors", tmp_path / "outputs.safetensors"]
    done = subprocess.run(command, cwd=tmp_path / "empty", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fusion", "shards", "calm", "fight", "0.4", "3", "fight"]
    with torch.no_grad():
        scored = bundle.model(streams, batch.present, batch.start)
    found = load_file(tmp_path / "outputs.safetensors")
    # Another process may split a sum in another way: equal up to that.
    torch.testing.assert_close(found["logits"], scored.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["embedding"], scored.encoded.embedding, rtol=1e-4, atol=1e-5)


def test_a_round_trip_keeps_everything(bundle: Bundle, folder: Path) -> None:
    loaded = load_bundle(folder)
    assert same_tensors(loaded.model, bundle.model)
    assert not loaded.model.training
    mine, theirs = bundle.backbone, loaded.backbone
    assert theirs.modalities == mine.modalities
    assert replace(theirs.spec, encoders={}) == replace(mine.spec, encoders={})
    for name in mine.modalities:
        assert encoder_spec(theirs.spec, name) == encoder_spec(mine.spec, name)
    assert (loaded.spec, loaded.segments, loaded.task, loaded.positive) == (bundle.spec, 3, "violence", "fight")
    assert (loaded.provenance, loaded.metrics, loaded.licence) == ({"steps": 7}, {"auc": 0.875}, "CC-BY-4.0")


def test_an_older_bundle_with_vectors_of_absent_modalities_loads(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    backbone = tiny_backbone(fusion="sigmoid").eval()
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "bundle")
    weights = load_file(tmp_path / "bundle" / WEIGHTS)
    save_file(weights | {"fusion.missing": torch.ones(2, 8)}, tmp_path / "bundle" / WEIGHTS)
    change_facts(tmp_path / "bundle", lambda facts: None)
    assert same_tensors(load_bundle(tmp_path / "bundle").model, backbone)


def test_a_bundle_of_an_older_version_is_the_same_network(tiny_clip: ClipSpec, tmp_path: Path) -> None:
    """Its facts say every field of every encoder but `pretrained`; an empty mapping of arguments meant none."""
    torch.manual_seed(0)
    stored = {
        "rgb": ["timm/test_resnet", {"channels": [4, 4, 8, 8]}, "mean", 2],
        "audio": ["timm/test_convnext", {}, "gru", 1],
        "inertial": ["conv1d", {}, "gru", 1],
    }
    encoders = {name: EncoderSpec(*values, frozen_norms=name == "rgb") for name, values in stored.items()}
    backbone = Backbone(tuple(stored), BackboneSpec("small", 8, encoders=encoders)).eval()
    # The preset has other arguments and another pooling for signals: neither may reach it.
    assert backbone.encoders["inertial"].features == 128
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "old")

    def as_before(facts: dict[str, Any]) -> None:
        facts["backbone"] = {
            "preset": "small",
            "width": 8,
            "fusion": "softmax",
            "fusion_arguments": {},
            "modality_dropout": 0.0,
            "encoders": {
                name: {
                    "model": model,
                    "arguments": arguments,
                    "pooling": pooling,
                    "stack": stack,
                    "weights": None,
                    "frozen_norms": name == "rgb",
                }
                for name, (model, arguments, pooling, stack) in stored.items()
            },
        }

    change_facts(tmp_path / "old", as_before)
    loaded = load_bundle(tmp_path / "old").backbone
    assert same_tensors(loaded, backbone)
    assert str(loaded) == str(backbone)
    assert loaded.encoders["rgb"].frozen_norms
    assert not loaded.encoders["audio"].frozen_norms


def test_application_and_packing_settings_are_saved(bundle: Bundle, folder: Path) -> None:
    packing = PackSettings(("rgb", "audio"), crf=30, clip_seconds=12.0, rates={"video": 25.0}, depth_scale=0.25)
    bundle.application = replace(clip_application(3, [1.0, 2.0, 4.0], 12.0), threshold=0.6, temperature=1.5)
    bundle.spec = replace(bundle.spec, stretch=0.5, packing=packing)
    save_bundle(bundle, folder)
    loaded = load_bundle(folder)
    assert (loaded.application, loaded.spec) == (bundle.application, bundle.spec)
    assert load_encoder(folder).application == bundle.application


@pytest.mark.parametrize("stretch", [0.0, 0.5])
def test_bundle_without_application_is_readable(bundle: Bundle, folder: Path, stretch: float) -> None:
    bundle.spec = replace(bundle.spec, stretch=stretch)
    save_bundle(bundle, folder)

    def age(facts: dict[str, Any]) -> None:
        del facts["application"], facts["clip"]["packing"]

    change_facts(folder, age)
    loaded = load_bundle(folder)
    assert loaded.application == default_application(bundle.spec, 3)
    assert loaded.spec == bundle.spec


def test_an_encoder_without_a_classifier(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    backbone = tiny_backbone(("rgb", "inertial"), fusion="sigmoid")
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "new" / "encoder")
    loaded = load_bundle(tmp_path / "new" / "encoder")
    assert isinstance(loaded.model, Backbone)
    assert loaded.task is None
    assert same_tensors(loaded.model, backbone)


def test_a_classifier_that_joins_decisions_of_a_backbone_with_tokens(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    classifier = Classifier(tiny_backbone(fusion="bottleneck"), ["calm", "fight"], decision="evidential")
    save_bundle(Bundle(classifier, tiny_clip, 2, "violence", "fight"), tmp_path / "joined")
    loaded = load_bundle(tmp_path / "joined").model
    assert isinstance(loaded, Classifier)
    assert loaded.decision_name == "evidential"
    assert same_tensors(loaded, classifier)


def test_the_folder_holds_no_pickle(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, FACTS, CARD}
    assert {Path(name).suffix for name in (WEIGHTS, FACTS, CARD)} == {".safetensors", ".json", ".md"}
    header = int.from_bytes((folder / WEIGHTS).read_bytes()[:8], "little")
    assert json.loads((folder / WEIGHTS).read_bytes()[8 : 8 + header])
    facts = json.loads((folder / FACTS).read_text())
    assert {name: entry["bytes"] for name, entry in facts["files"].items()} == {
        name: (folder / name).stat().st_size for name in (WEIGHTS, CARD)
    }
    assert all(encoder["weights"] is None for encoder in facts["backbone"]["encoders"].values())


def change_facts(folder: Path, change: Callable[[dict[str, Any]], object], sealed: bool = True) -> None:
    """Alters the facts; `sealed` updates the checksum too, so that later checks are reached."""
    facts = json.loads((folder / FACTS).read_text())
    change(facts)
    (folder / FACTS).write_text(json.dumps(seal(facts, folder, (WEIGHTS, CARD)) if sealed else facts))


@pytest.mark.parametrize(
    "forged",
    [
        {"weights": "{file}"},
        {"pretrained": True, "arguments": {"pretrained_cfg_overlay": {"file": "{file}"}}},
        {"arguments": {"checkpoint_path": "{file}"}},
    ],
)
def test_loading_reads_no_other_file_that_the_facts_name(
    forged: dict[str, Any], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    """An unpickled file would run code."""
    backbone = Backbone(("rgb",), BackboneSpec(encoders={"rgb": EncoderSpec("timm/test_convnext", pooling="mean")}))
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "bundle")
    named = json.loads(json.dumps(forged).replace("{file}", str(tmp_path / "other.pth")))
    change_facts(tmp_path / "bundle", lambda facts: facts["backbone"]["encoders"]["rgb"].update(named))
    # The file does not exist: reading it would fail.
    assert same_tensors(load_bundle(tmp_path / "bundle").model, backbone)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def replace_weights(folder: Path) -> None:
    """Other tensors, with a checksum that agrees."""
    save_file({"stranger": torch.zeros(2)}, folder / WEIGHTS)
    change_facts(folder, lambda facts: None)


def newer(folder: Path) -> None:
    change_facts(folder, lambda facts: facts.update(format_version=99))


def older(folder: Path) -> None:
    """As the first format was written: no seal, and only the weights' checksum."""
    change_facts(folder, lambda f: (f.update(format_version=1, weights=f["files"][WEIGHTS]), f.pop("sha256")), False)


def elsewhere(folder: Path) -> None:
    """A bundle that has another folder's file read, sealed as if it were its own."""
    facts = json.loads((folder / FACTS).read_text())
    (folder.parent / "secret").write_text("x")
    (folder / FACTS).write_text(json.dumps(seal(facts, folder, (WEIGHTS, CARD, "../secret"))))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: shutil.rmtree(f), RequestError, "is not a bundle"),
        (lambda f: (f / FACTS).unlink(), RequestError, "is not a bundle"),
        (lambda f: (f / WEIGHTS).unlink(), DataError, f"{WEIGHTS}' is missing"),
        (lambda f: (f / CARD).unlink(), DataError, f"{CARD}' is missing"),
        (lambda f: cut(f / WEIGHTS), DataError, rf"{WEIGHTS}' has \d+ bytes, not \d+"),
        (lambda f: flip_a_bit(f / WEIGHTS), DataError, f"{WEIGHTS}' has changed since its export"),
        (lambda f: flip_a_bit(f / CARD), DataError, f"{CARD}' has changed since its export"),
        (replace_weights, DataError, "is damaged"),
        (lambda f: cut(f / FACTS), DataError, f"{FACTS}' is damaged"),
        (lambda f: (f / FACTS).write_bytes(b"\xff\xfe\x00"), DataError, f"{FACTS}' is damaged"),
        (lambda f: (f / FACTS).write_text("[]"), DataError, f"{FACTS}' is damaged"),
        (newer, RequestError, "format 99, but this modalgate reads 2: install a newer"),
        (older, RequestError, "format 1, but this modalgate reads 2: train or export it again"),
        (lambda f: change_facts(f, lambda facts: facts.update(format_version="2")), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts["classes"].reverse(), False), DataError, "was changed after"),
        (lambda f: change_facts(f, lambda facts: facts.pop("sha256"), False), DataError, "was changed after"),
        (elsewhere, DataError, "which is outside it"),
        (lambda f: change_facts(f, lambda facts: facts.pop("format_version")), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts.pop("licence")), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts.pop("segments")), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts.update(backbone=[])), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts["clip"].update(strange=1)), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts["backbone"].update(width=16)), DataError, "is damaged"),
        (lambda f: change_facts(f, lambda facts: facts.update(classes=["a", "b", "c"])), DataError, "is damaged"),
    ],
)
def test_damage_is_named_in_one_line(
    damage: Callable[[Path], object], error: type[Exception], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(error, match=message) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_other_content_is_never_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    for place in (other, other / "chapter.txt"):
        with pytest.raises(RequestError, match="is not empty and not a bundle"):
            save_bundle(bundle, place)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]
    assert [path.name for path in other.iterdir()] == ["chapter.txt"]
    assert (other / "chapter.txt").read_text() == "years of work"


def test_an_empty_folder_and_an_older_bundle_are_replaced(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_bundle(bundle, tmp_path / "empty")
    (folder / "left over").write_text("from before")
    bundle.segments = 5
    save_bundle(bundle, folder)
    for place in (tmp_path / "empty", folder):
        assert {path.name for path in place.iterdir()} == {WEIGHTS, FACTS, CARD}
    assert load_bundle(folder).segments == 5


@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_save_leaves_nothing_behind(bundle: Bundle, tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "encoder"
    if existing:
        save_bundle(bundle, target)
    before = {path.name: path.read_bytes() for path in target.iterdir()} if existing else None
    bundle.provenance = {"device": object()}
    with pytest.raises(TypeError):
        save_bundle(bundle, target)
    assert [path.name for path in tmp_path.iterdir()] == (["encoder"] if existing else [])
    if before is not None:
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_saving_own_classes_leaves_the_random_state_alone(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle builds the class again, which draws weights."""
    module = "from modalgate.fusion.mechanisms.gates import SoftmaxGate\n\n\nclass Mine(SoftmaxGate):\n    pass\n"
    (tmp_path / "drawinglab.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    backbone = tiny_backbone(fusion="drawinglab:Mine")
    before = torch.get_rng_state()
    save_bundle(Bundle(backbone, tiny_clip, 2), tmp_path / "bundle")
    assert torch.equal(torch.get_rng_state(), before)
    assert same_tensors(load_bundle(tmp_path / "bundle", allow=("drawinglab",)).model, backbone)
