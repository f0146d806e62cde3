"""Exported graphs give the results of the model in other runtimes."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle
from modalgate.fusion.bundle.graph import GraphModel, every_subset, random_windows
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms_by_name import fusions_at
from modalgate.launch.export import graph_export
from modalgate.launch.export.graph_export import METADATA, export_graph
from modalgate.launch.export.parity import Windows, eager_outputs
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError, RequestError

# What tracing takes grows with the operations: each test has no more networks than it needs.
NAMES = ("depth", "inertial")
EVERY_KIND = ("rgb", "audio", "inertial")


@pytest.fixture(scope="module")
def build(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> Callable[..., Bundle]:
    """`build(modalities, **fields of the backbone's spec)`: a classifier whose parts all say something."""

    def make(names: tuple[str, ...] = NAMES, **changes: Any) -> Bundle:
        classifier = Classifier(tiny_backbone(names, **changes), ["calm", "fight"]).eval()
        torch.manual_seed(1)
        for parameter in classifier.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return Bundle(classifier, tiny_clip, 2, "violence", "fight")

    return make


def test_onnx_accepts_any_number_of_rows_and_every_subset(build: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = build()
    exported = export_graph(bundle, tmp_path / "model.onnx", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert exported.noise < 1e-4
    assert exported.clips is None
    session = onnxruntime.InferenceSession(str(exported.path))
    assert [entry.name for entry in session.get_inputs()] == ["present", *NAMES]
    assert [entry.name for entry in session.get_outputs()] == ["probabilities", "embedding", "weights"]
    present = every_subset(NAMES)
    for rows in (1, 3, 4):
        streams = random_windows(bundle.spec, NAMES, rows, seed=rows)
        windows = Windows(present[-rows:], streams)
        found = session.run(None, {"present": present[-rows:].numpy(), **{k: v.numpy() for k, v in streams.items()}})
        for mine, theirs in zip(found, eager_outputs(bundle, windows), strict=True):
            np.testing.assert_allclose(np.asarray(mine), theirs.numpy(), atol=1e-4)
    facts = json.loads({e.key: e.value for e in onnx.load(str(exported.path)).metadata_props}[METADATA])
    assert facts["classes"] == ["calm", "fight"]
    assert facts["inputs"]["depth"] == {"shape": ["rows", 2, 1, 32, 32], "type": "uint16"}


@pytest.mark.slow
def test_torch_program_of_the_encoder_alone_matches(build: Callable[..., Bundle], tmp_path: Path) -> None:
    names = ("rgb", "inertial")
    bundle = build(names)
    export_graph(bundle, tmp_path / "model.pt2", "torch", encoder_only=True)
    files = {METADATA: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files).module()
    assert json.loads(files[METADATA])["outputs"] == ["embedding", "weights"]
    streams = random_windows(bundle.spec, names, 3)
    present = every_subset(names)[-3:]
    with torch.no_grad():
        found = program(present, *streams.values())
    for mine, theirs in zip(found, eager_outputs(bundle, Windows(present, streams), True), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_differing_graph_is_deleted(
    build: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(("inertial",))

    def of_another(model: GraphModel) -> torch.export.ExportedProgram:
        other = deepcopy(model)
        for parameter in other.backbone.fusion.parameters():
            parameter.data += 0.1
        return trace(other)

    trace = graph_export.trace
    monkeypatch.setattr(graph_export, "trace", of_another)
    with pytest.raises(DataError, match=r"torch graph differs from the model by .* on noise"):
        export_graph(bundle, tmp_path / "model.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_fusion_without_an_onnx_form_is_rejected_in_one_line(build: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = build(("inertial",), fusion="bilinear")
    with pytest.raises(RequestError, match=r"'bilinear' cannot be written as ONNX .*: give --format torch") as caught:
        export_graph(bundle, tmp_path / "model.onnx", "onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("fusion", [name for name in fusions_at("feature", "token") if name != "bilinear"])
def test_every_fusion_as_onnx_under_every_subset(fusion: str, build: Callable[..., Bundle], tmp_path: Path) -> None:
    assert export_graph(build(EVERY_KIND, fusion=fusion), tmp_path / "model.onnx", "onnx").noise < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("fusion", fusions_at("feature", "token"))
def test_every_fusion_as_a_torch_program_under_every_subset(
    fusion: str, build: Callable[..., Bundle], tmp_path: Path
) -> None:
    assert export_graph(build(EVERY_KIND, fusion=fusion), tmp_path / "model.pt2", "torch").noise < 1e-4


@pytest.mark.slow
def test_gate_with_quality_measures_as_onnx(build: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = build(EVERY_KIND, fusion="softmax", fusion_arguments={"quality": 3})
    assert export_graph(bundle, tmp_path / "model.onnx", "onnx").noise < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("decision", fusions_at("decision"))
def test_every_decision_fusion_as_onnx(
    decision: str, tiny_backbone: Any, tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    classifier = Classifier(tiny_backbone(EVERY_KIND), ["calm", "fight"], unimodal=True, decision=decision).eval()
    bundle = Bundle(classifier, tiny_clip, 2, "violence", "fight")
    assert export_graph(bundle, tmp_path / "model.onnx", "onnx").noise < 1e-4


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        ("onx", "a.onnx", "unknown export format 'onx': did you mean 'onnx'"),
        ("onnx", "a.pt2", "is not a .onnx file"),
        ("torch", "a.onnx", "is not a .pt2 file"),
    ],
)
def test_invalid_request_writes_nothing(
    build: Callable[..., Bundle], tmp_path: Path, kind: str, file: str, message: str
) -> None:
    bundle = build(("inertial",))
    with pytest.raises(RequestError, match=message):
        export_graph(bundle, tmp_path / file, kind)
    assert list(tmp_path.iterdir()) == []
