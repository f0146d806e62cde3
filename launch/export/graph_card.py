"""The model card of an exported graph: the bundle's card, the comparison of graph and model, the cost of int8."""

from dataclasses import replace
from pathlib import Path

from ...fusion.bundle.bundle import Bundle, describe_bundle
from ...fusion.bundle.model_card import model_card
from ..runs.closing_table import markdown_rows
from .graph_export import Exported
from .graph_files import card_path
from .int8 import NOISE, Cost


def save_card(bundle: Bundle, exported: Exported, cost: Cost | None) -> Path:
    """Writes FILE.md next to the graph FILE and returns its path."""
    path = card_path(exported.path)
    if "probabilities" not in exported.outputs:
        bundle = replace(bundle, model=bundle.backbone, task=None)
    clips = "none were given" if exported.clips is None else f"{exported.clips:.2g}"
    graph = [
        f"- {exported.path.name}: {exported.bytes} bytes; outputs: {', '.join(exported.outputs)}",
        f"- Largest difference from the model, on noise with every subset of modalities: {exported.noise:.2g}; on "
        f"clips: {clips}",
    ]
    sections = {"Graph": "\n".join(graph)}
    if cost is not None:
        what = (
            "Noise, which says little about accuracy: measure it on clips."
            if cost.source == NOISE
            else f"The central windows of {cost.windows} clips of {Path(cost.source).name}; the model may have been "
            "trained on some of them."
        )
        table = markdown_rows(("figure", "fp32", "int8"), cost.rows())
        sections["int8"] = f"{cost.path.name}, dynamically quantised. {what}\n\n{table}"
    loading = _LOADING[exported.path.suffix].format(name=exported.path.name)
    path.write_text(model_card(describe_bundle(bundle), loading, sections), encoding="utf-8")
    return path


_LOADING = {
    ".onnx": """\
    import onnxruntime
    session = onnxruntime.InferenceSession("{name}")
    inputs = [(entry.name, entry.shape, entry.type) for entry in session.get_inputs()]""",
    ".pt2": """\
    import torch
    program = torch.export.load("{name}").module()  # takes `present`, then the modalities in their order""",
}
