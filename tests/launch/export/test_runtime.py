"""Graphs from other tools run by input name, and missing packages are named with their extra."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.launch.export.runtime import need_onnx, open_onnx, open_program
from modalgate.shards.errors import RequestError
from onnx import TensorProto, helper, save


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
