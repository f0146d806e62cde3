"""An exported graph against the bundle it was made of, by `predict`."""

import json
from pathlib import Path
from typing import Any

import pytest
from modalgate.launch.cli import main
from modalgate.launch.predict.onnx_scorer import OnnxScorer
from modalgate.shards.errors import DataError
from onnx import TensorProto, helper, save


@pytest.mark.slow
def test_graph_prints_the_lines_of_the_bundle(
    trained_run: Path, hall_film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "violence.onnx"
    assert main(["export", str(trained_run), str(graph), "--format", "onnx"]) == 0
    lines = []
    for model in (trained_run, graph):
        capsys.readouterr()
        assert main(["predict", str(model), str(hall_film)]) == 0
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        lines.append([line for line in said if line["kind"] == "window"])
    assert len(lines[0]) == len(lines[1]) == 29
    for mine, theirs in zip(*lines, strict=True):
        assert mine["present"] == theirs["present"]
        for key in ("probabilities", "gates"):
            assert mine[key] == pytest.approx(theirs[key], abs=1e-4)


def test_damaged_graph_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match="is not a whole ONNX file"):
        OnnxScorer(tmp_path / "model.onnx")


FACTS = {
    "modalities": ["rgb"],
    "classes": ["calm", "fight"],
    "positive": "fight",
    "inputs": {"rgb": {"shape": ["rows", 2, 3, 32, 32], "type": "uint8"}},
    "clip": {
        "seconds": 0.4,
        "frames": 2,
        "size": 32,
        "short_side": 32,
        "fps": 8.0,
        "sample_rate": 8000,
        "flow_bound": 14.0,
        "statistics": {"rgb": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}},
    },
}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"rgb": {"shape": ["rows", 2**40], "type": "uint8"}}},
        {"inputs": {"rgb": {"shape": ["rows", -1], "type": "uint8"}}},
        {"inputs": {"rgb": {"shape": ["rows", 2], "type": "O"}}},
        {"clip": FACTS["clip"] | {"frames": 10**9}},
        {"clip": FACTS["clip"] | {"fps": 0}},
        {"application": {"hop": 1e-12, "piece": 1.0}},
        {"modalities": 3},
        {"modalities": ["other"]},
    ],
)
def test_hostile_settings_are_refused_in_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    def write(facts: dict[str, Any]) -> Path:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        helper.set_model_props(model, {"modalgate.json": json.dumps(facts)})
        save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    assert OnnxScorer(write(FACTS)).classes == ("calm", "fight")
    with pytest.raises(DataError, match="is damaged") as caught:
        OnnxScorer(write(FACTS | change))
    assert "\n" not in str(caught.value)
