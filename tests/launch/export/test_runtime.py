"""Graphs from other tools run by input name, and missing packages are named with their extra."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.launch.export.runtime import has_other_files, need_onnx, open_onnx, open_program, open_session
from modalgate.shards.errors import RequestError
from onnx import GraphProto, TensorProto, helper, save


def test_onnx_inputs_go_by_name_and_torch_inputs_by_order(tmp_path: Path) -> None:
    def tensor(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2])

    nodes = [helper.make_node("Sub", ["a", "b"], ["c"])]
    graph = helper.make_graph(nodes, "less", [tensor("a"), tensor("b")], [tensor("c")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "less.onnx")
    first, second = np.full((3, 2), 5, np.float32), np.full((3, 2), 2, np.float32)
    (found,) = open_onnx(tmp_path / "less.onnx")({"b": second, "a": first})
    np.testing.assert_array_equal(found, first - second)

    class Less(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
            return (a - b,)

    torch.export.save(torch.export.export(Less(), (torch.ones(3, 2), torch.ones(3, 2))), tmp_path / "less.pt2")
    (found,) = open_program(tmp_path / "less.pt2")({"a": first, "b": second})
    np.testing.assert_array_equal(found, first - second)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    need_onnx()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RequestError, match=r"ONNX needs onnxscript: pip install 'modalgate\[export\]'"):
        need_onnx()


def stored_in(place: str) -> TensorProto:
    """Four numbers that stand in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    return tensor


def in_initializer(tensor: TensorProto) -> GraphProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    return helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "add", ends[:1], ends[1:], [tensor])


def in_constant(tensor: TensorProto) -> GraphProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["x", "w"], ["y"])]
    return helper.make_graph(nodes, "add", ends[:1], ends[1:])


def in_branch(tensor: TensorProto) -> GraphProto:
    branch = in_constant(tensor)
    del branch.input[:]
    condition = helper.make_tensor_value_info("b", TensorProto.BOOL, [])
    node = helper.make_node("If", ["b"], ["z"], then_branch=branch, else_branch=branch)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "z")]
    return helper.make_graph([node], "if", [ends[0], condition], ends[1:])


@pytest.mark.parametrize("wrap", [in_initializer, in_constant, in_branch])
@pytest.mark.parametrize("place", ["beside.bin", "../secret.bin", "{folder}/secret.bin"])
def test_a_graph_reads_no_other_file(
    wrap: Callable[[TensorProto], GraphProto], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("secret.bin", "model/beside.bin"):
        (tmp_path / name).write_bytes(np.arange(4, dtype=np.float32).tobytes())
    # Names may also be meant from the current folder.
    monkeypatch.chdir(tmp_path / "model")
    graph = wrap(stored_in(place.format(folder=tmp_path)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "model" / "add.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="tensors in other files"):
        open_session(tmp_path / "model" / "add.onnx")


def test_a_file_that_is_not_onnx_is_a_value_error() -> None:
    for content in (b"\x0f", b"\x3a\x7f", b"\xff" * 20):
        with pytest.raises(ValueError, match="it is"):
            has_other_files(memoryview(content))
