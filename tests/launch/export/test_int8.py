"""int8 graphs: their accuracy, and their measured cost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle
from modalgate.fusion.bundle.graph import random_windows
from modalgate.fusion.classifier import Classifier
from modalgate.launch.export.graph_export import METADATA, export_graph
from modalgate.launch.export.int8 import measure, quantise
from modalgate.launch.export.parity import Windows, noise_windows
from modalgate.launch.export.runtime import open_onnx
from modalgate.shards.clip_spec import ClipSpec


@pytest.fixture(scope="module")
def bundle(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> Bundle:
    classifier = Classifier(tiny_backbone(("inertial",)), ["calm", "fight"]).eval()
    torch.manual_seed(1)
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Bundle(classifier, tiny_clip, 2, "violence", "fight")


@pytest.fixture(scope="module")
def path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX graph, one for all tests: tracing takes seconds."""
    return export_graph(bundle, tmp_path_factory.mktemp("graph") / "model.onnx", "onnx").path


@pytest.mark.slow
def test_cost_compares_the_two_files(bundle: Bundle, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cost = quantise(bundle, path)
    printed = capfd.readouterr()
    assert printed.out + printed.err == "", "what the quantiser advises concerns its authors"
    assert cost.path == path.with_name("model-int8.onnx")
    assert cost.bytes == (path.stat().st_size, cost.path.stat().st_size)
    operators = {node.op_type for node in onnx.load(str(cost.path)).graph.node}
    assert "MatMulInteger" in operators
    assert METADATA in {entry.key for entry in onnx.load(str(cost.path)).metadata_props}
    batches = list(noise_windows(bundle))
    assert cost.windows == sum(len(windows.present) for windows in batches) == 3
    whole, small = open_onnx(path), open_onnx(cost.path)
    pairs = [(whole(windows.arrays()), small(windows.arrays())) for windows in batches]
    expected = max(float(np.abs(m - t).max()) for pair in pairs for m, t in zip(*pair, strict=True))
    assert cost.difference == expected
    assert 0 < expected < 1
    cosines = [
        float(m @ t / np.sqrt(m @ m * (t @ t))) for pair in pairs for m, t in zip(pair[0][1], pair[1][1], strict=True)
    ]
    assert cost.cosine == pytest.approx(np.mean(cosines), abs=1e-6)


def test_accuracy_counts_only_known_labels(bundle: Bundle, path: Path) -> None:
    windows = Windows(torch.ones(4, 1, dtype=torch.bool), random_windows(bundle.spec, ("inertial",), 4))
    guesses = open_onnx(path)(windows.arrays())[0].argmax(axis=1)
    classes = ["calm", "fight"]
    right = [classes[guess] for guess in guesses]
    wrong_first = [classes[1 - guesses[0]], right[1], right[2], "unheard of"]
    cost = measure(bundle, path, path, [replace(windows, labels=wrong_first)], "clips")
    assert cost.accuracy == pytest.approx((2 / 3, 2 / 3))
    assert cost.labelled == 3
    assert cost.agreement == 1
    assert cost.difference == 0
    assert cost.cosine == pytest.approx(1)


def test_time_is_the_fastest_pass_over_the_rows(bundle: Bundle, path: Path) -> None:
    windows = next(noise_windows(bundle))
    ticks = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0, 0.0, 1.0, 5.0, 9.0, 10.0, 18.0])
    cost = measure(bundle, path, path, [windows], "noise", clock=lambda: next(ticks))
    assert cost.milliseconds == pytest.approx((2 / 2 * 1000, 1 / 2 * 1000))
