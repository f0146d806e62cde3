"""An exported graph against the bundle it was made of, by `predict`."""

import json
from pathlib import Path

import pytest
from modalgate.launch.cli import main
from modalgate.launch.predict.onnx_scorer import OnnxScorer
from modalgate.shards.errors import DataError


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
