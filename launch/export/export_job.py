"""`export`: a trained model as a bundle, a graph, or the network of one modality."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...fusion.bundle.bundle import count_parameters
from ...fusion.bundle.bundle_files import FACTS
from ...fusion.bundle.single_network import save_single
from ...shards.index.table import Index, load_index
from ...shards.index.whole_file import keep_results
from ..runs.closing_table import print_table, write_json
from ..runs.next_step import model_line, run_line
from .exporting import export_bundle, trained_bundle
from .graph_files import card_path, int8_path

if TYPE_CHECKING:
    from .graph_export import Exported
    from .int8 import Cost


@dataclass(frozen=True)
class GraphRequest:
    """A graph to write: its `form` (onnx, torch), the encoder alone if `encoder_only`, also quantised if `int8`.

    `shards`: clips on which it is compared with the model; `label`: their label column.
    """

    form: str
    encoder_only: bool
    int8: bool
    shards: Path | None
    label: str | None

    def clips(self) -> tuple[Index | None, str | None]:
        """The clips and their label column: the given one, else `label` if they have it.

        Raises what `load_index` raises, and `RequestError` for a missing column.
        """
        if self.shards is None:
            return None, None
        index = load_index(self.shards)
        if self.label is None:
            return index, "label" if "label" in index.columns else None
        index.column(self.label)
        return index, self.label


@dataclass(frozen=True)
class Written:
    """An exported model.

    out: the folder or file.
    figures: what was written, by name.
    classifier: whether the run's model is a classifier.
    use: lines of Python that load the network of one modality.
    graph: size of a graph, and its largest difference from the model.
    int8: cost of the quantised graph.
    card: model card of a graph.
    """

    out: Path
    figures: dict[str, Any]
    classifier: bool
    use: list[str] = field(default_factory=list)
    graph: "Exported | None" = None
    int8: "Cost | None" = None
    card: Path | None = None


def check_free(out: Path, graph: bool, int8: bool, overwrite: bool) -> None:
    """Raises `RequestError` if there is a model at `out`, or of a graph its card or quantised twin, and not
    `overwrite`.

    A folder with anything but a bundle is never replaced.
    """
    places = [out, *([card_path(out)] if graph else []), *([int8_path(out)] if int8 else [])]
    for place in places:
        if not place.is_dir() or (place / FACTS).is_file():
            keep_results(place, "OUT", overwrite)


def export_model(
    run: Path, out: Path, request: GraphRequest | None, modality: str | None, licence: str | None
) -> Written:
    """Writes the model of `run` to `out`: with a `modality` its network, with a `request` a graph, else a bundle."""
    if modality is not None:
        return _single(run, out, modality)
    if request is not None:
        return _graph(run, out, request, licence)
    bundle, difference = export_bundle(run, out, licence)
    figures = {
        "kind": bundle.task or "encoder",
        "modalities": ", ".join(bundle.backbone.modalities),
        "fusion": bundle.backbone.spec.fusion,
        "parameters": count_parameters(bundle.model),
        "weights": bundle.provenance.get("weights", "as the bundle has them"),
        "largest difference": difference,
        "licence": bundle.licence or "not stated (--license)",
    }
    return Written(out, figures, bundle.task is not None)


def print_written(run: Path, written: Written, request: GraphRequest | None, json: Path | None) -> None:
    """Prints what was exported, the lines that load a network, and the next command."""
    out, graph, cost = written.out, written.graph, written.int8
    if written.use:
        typer.echo(f"{written.figures['modality']} of {run} exported to {out}. It loads with:\n")
        typer.echo("".join(f"    {line}\n" for line in written.use))
        write_json(json, written.figures | {"file": out, "use": written.use})
        typer.echo(run_line(run, run, written.classifier))
        return
    print_table(f"{run} exported to {out}", ("figure", "value"), list(written.figures.items()))
    if request is None or graph is None:
        write_json(json, written.figures)
        typer.echo(model_line(out, written.classifier))
        return
    content: dict[str, object] = {"graph": asdict(graph)}
    if cost is not None:
        title = f"{cost.path}, on {cost.windows} windows of {cost.source}"
        print_table(title, ("figure", "fp32", "int8"), cost.rows())
        if request.shards is None:
            typer.echo("noise says little about accuracy: give --shards SHARDS to measure it on clips")
        content["int8"] = asdict(cost)
    typer.echo(f"model card: {written.card}")
    write_json(json, content)
    scored = written.classifier and not request.encoder_only and request.form == "onnx"
    typer.echo(model_line(out, classifier=True) if scored else run_line(run, run, written.classifier))


def _single(run: Path, out: Path, modality: str) -> Written:
    """The network of one modality as a state dict, and the lines of Python that load it."""
    bundle = trained_bundle(run)
    return Written(out, {"modality": modality}, bundle.task is not None, save_single(bundle, modality, out))


def _graph(run: Path, out: Path, request: GraphRequest, licence: str | None) -> Written:
    """The model as a graph, compared with the model, and its model card."""
    from .graph_card import save_card
    from .graph_export import export_graph

    bundle = trained_bundle(run)
    bundle = replace(bundle, licence=licence or bundle.licence)
    index, label = request.clips()
    exported = export_graph(bundle, out, request.form, request.encoder_only, index)
    figures = {
        "inputs": ", ".join(("present", *bundle.backbone.modalities)),
        "outputs": ", ".join(exported.outputs),
        "weights": bundle.provenance.get("weights", "as the bundle has them"),
        "bytes": exported.bytes,
        "largest difference on noise": exported.noise,
        "largest difference on clips": exported.clips,
    }
    cost = None
    if request.int8:
        from .int8 import quantise

        cost = quantise(bundle, out, index, label)
    card = save_card(bundle, exported, cost)
    return Written(out, figures, bundle.task is not None, graph=exported, int8=cost, card=card)
