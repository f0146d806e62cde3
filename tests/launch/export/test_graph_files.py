"""The files beside a graph."""

from pathlib import Path

from modalgate.launch.export.graph_files import card_path, int8_path


def test_the_card_and_the_twin_stand_beside_the_graph() -> None:
    graph = Path("models") / "violence.v2.onnx"
    assert card_path(graph) == Path("models") / "violence.v2.onnx.md"
    assert int8_path(graph) == Path("models") / "violence.v2-int8.onnx"
