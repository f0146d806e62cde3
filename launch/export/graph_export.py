"""`export --format torch|onnx`: the model as one graph, compared with the model before it is kept."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...fusion.bundle.bundle import Bundle
from ...fusion.bundle.graph import GraphModel, random_windows, stored_form
from ...fusion.classifier import Classifier
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.index.table import Index
from ...shards.index.whole_file import whole_file
from .parity import clip_windows, noise_windows, worst_difference
from .runtime import need_onnx, open_onnx, open_program

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4
METADATA = "modalgate.json"


@dataclass(frozen=True)
class Exported:
    """The file, its size, and its largest difference from the model on noise and, with shards, on clips."""

    path: Path
    bytes: int
    outputs: tuple[str, ...]
    noise: float
    clips: float | None


def export_graph(
    bundle: Bundle, out: Path, kind: str, encoder_only: bool = False, index: Index | None = None
) -> Exported:
    """Writes the model to `out` (`.onnx` or `.pt2`), with the meaning of its inputs and outputs as JSON inside.

    The number of rows is free; the input `present` selects any subset of modalities. Raises `RequestError` for
    another suffix or missing packages, and `DataError`, without a file, if the graph differs from the model by more
    than 1e-4 on noise in every subset or on the clips of `index`.
    """
    if kind not in SUFFIXES:
        raise choice_error("export format", kind, ("bundle", *SUFFIXES))
    if out.suffix != SUFFIXES[kind]:
        raise RequestError(f"'{out}' is not a {SUFFIXES[kind]} file: --format {kind} needs that suffix")
    if kind == "onnx":
        need_onnx()
    graph = GraphModel(bundle, encoder_only)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, keep_suffix=True) as partial:
        program = trace(graph)
        facts = describe(bundle, graph)
        if kind == "onnx":
            _write_onnx(program, graph, facts, partial)
        else:
            with quiet():
                torch.export.save(program, partial, extra_files={METADATA: json.dumps(facts)})
        run = open_onnx(partial) if kind == "onnx" else open_program(partial)
        noise = worst_difference(bundle, run, noise_windows(bundle), encoder_only)
        clips = None
        if index is not None:
            clips = worst_difference(bundle, run, clip_windows(bundle, index), encoder_only)
        for what, difference in (("noise", noise), ("clips", clips or 0.0)):
            if not difference <= TOLERANCE:
                raise DataError(
                    f"the {kind} graph differs from the model by {difference:.2g} on {what}, more than "
                    f"{TOLERANCE:g}: not kept; export the bundle instead"
                )
    return Exported(out, out.stat().st_size, graph.outputs, noise, clips)


def trace(graph: GraphModel) -> torch.export.ExportedProgram:
    """The graph with a free number of rows."""
    streams = random_windows(graph.preparation.spec, graph.modalities, 3)
    present = torch.ones(3, len(graph.modalities), dtype=torch.bool)
    rows = torch.export.Dim("rows", min=1, max=4096)
    shapes = {"present": {0: rows}, "streams": tuple({0: rows} for _ in streams)}
    # The fused kernel of transformer layers cannot be written as ONNX; the plain one computes the same.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph, (present, *streams.values()), dynamic_shapes=shapes)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def describe(bundle: Bundle, graph: GraphModel) -> dict[str, Any]:
    """The facts that a program needs to run the graph."""
    inputs: dict[str, Any] = {"present": {"shape": ["rows", len(graph.modalities)], "type": "bool"}}
    for name in graph.modalities:
        shape, kind = stored_form(bundle.spec, name)
        inputs[name] = {"shape": ["rows", *shape], "type": str(kind).removeprefix("torch.")}
    classes = graph.model.classes if isinstance(graph.model, Classifier) else ()
    return {
        "modalities": list(graph.modalities),
        "inputs": inputs,
        "outputs": list(graph.outputs),
        "classes": list(classes),
        "multilabel": isinstance(graph.model, Classifier) and graph.model.multilabel,
        "positive": bundle.positive if classes else None,
        "clip": asdict(bundle.spec),
        "application": asdict(replace(bundle.application, views=bundle.segments)),
        "metrics": bundle.metrics,
        "licence": bundle.licence,
    }


def _write_onnx(program: torch.export.ExportedProgram, graph: GraphModel, facts: dict[str, Any], path: Path) -> None:
    names = ["present", *graph.modalities]
    with quiet():
        try:
            written = torch.onnx.export(
                program, (), dynamo=True, input_names=names, output_names=list(graph.outputs), verbose=False
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = str(cause).splitlines()[0].rstrip(".")
            raise RequestError(
                f"a model with fusion '{graph.backbone.spec.fusion}' cannot be written as ONNX ({reason}): give "
                "--format torch"
            ) from error
        assert written is not None
        written.model.metadata_props[METADATA] = json.dumps(facts)
        written.save(str(path))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the exporter's progress and deprecation notes; failures are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
