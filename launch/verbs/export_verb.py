"""`modalgate export`: a trained model in the forms that others take."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.next_step import model_line, run_line

if TYPE_CHECKING:
    from ...shards.index.table import Index

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


@dataclass(frozen=True)
class GraphRequest:
    """Which graph is asked for: its `form` (onnx, torch), of the encoder alone or of all, with one in `int8` beside
    it or not; `shards`: clips that it is compared on, `label`: their column."""

    form: str
    encoder_only: bool
    int8: bool
    shards: Path | None
    label: str | None

    def clips(self) -> "tuple[Index | None, str | None]":
        """The clips and their label column, `label` where none was named and it is there.

        Raises what `load_index` raises, and `RequestError` for a column that is not there.
        """
        from ...shards.index.table import load_index

        if self.shards is None:
            return None, None
        index = load_index(self.shards)
        if self.label is None:
            return index, "label" if "label" in index.columns else None
        index.column(self.label)
        return index, self.label


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `pretrain` or `finetune`.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new folder; .onnx, .pt2 or .safetensors for the other forms.")
    ],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="bundle, onnx, or torch (torch.export).")
    ] = "bundle",
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Of a classifier, the graph of its encoder.")
    ] = False,
    shards: Annotated[
        Path | None, typer.Option(metavar="SHARDS", help="Also compare a graph with the model on these clips.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Their label column, for the accuracy of int8; `label` if there.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="With onnx: also a dynamically quantised graph, and what it costs.")
    ] = False,
    modality: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this modality's network, for timm or torchvision.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="Terms for the model card, such as CC-BY-4.0.")
    ] = None,
    json: Json = None,
) -> None:
    """Write a run's encoder or classifier as a bundle or a graph, checked against the run; or one network of it."""
    from ...shards.errors import RequestError

    graph = form != "bundle"
    for given, needed, option in (
        (graph, modality is None, "--modality writes a state dict: leave out --format"),
        (int8, form == "onnx", "--int8 quantises an ONNX graph: add --format onnx"),
        (encoder_only, graph, "--encoder-only is for graphs: add --format onnx or torch"),
        (shards is not None, graph, "--shards compares graphs: add --format onnx or torch"),
        (label is not None, int8 and shards is not None, "--label is for --int8 on --shards: add both"),
        (licence is not None, modality is None, "--license goes on a card, which one network does not have"),
    ):
        if given and not needed:
            raise RequestError(option)
    from .first_checks import check_shards, check_trained

    check_trained(run)
    if shards is not None:
        check_shards(shards)
    if modality is not None:
        _export_single(run, out, modality, json)
    elif graph:
        _export_graph(run, out, GraphRequest(form, encoder_only, int8, shards, label), licence, json)
    else:
        _export_bundle(run, out, licence, json)


def _export_bundle(run: Path, out: Path, licence: str | None, json: Path | None) -> None:
    from ...fusion.bundle.bundle import count_parameters
    from ..export.exporting import export_bundle
    from ..runs.closing_table import print_table, write_json

    bundle, difference = export_bundle(run, out, licence)
    facts = {
        "kind": bundle.task or "encoder",
        "modalities": ", ".join(bundle.backbone.modalities),
        "fusion": bundle.backbone.spec.fusion,
        "parameters": count_parameters(bundle.model),
        "weights": bundle.provenance.get("weights", "as the bundle has them"),
        "largest difference": difference,
        "licence": bundle.licence or "not stated (--license)",
    }
    print_table(f"{run} exported to {out}", ("figure", "value"), list(facts.items()))
    write_json(json, facts)
    typer.echo(model_line(out, bundle.task is not None))


def _export_single(run: Path, out: Path, modality: str, json: Path | None) -> None:
    from ...fusion.bundle.single_network import save_single
    from ..export.exporting import trained_bundle
    from ..runs.closing_table import write_json

    bundle = trained_bundle(run)
    lines = save_single(bundle, modality, out)
    typer.echo(f"{modality} of {run} exported to {out}. It loads with:\n")
    typer.echo("".join(f"    {line}\n" for line in lines))
    write_json(json, {"modality": modality, "file": out, "use": lines})
    typer.echo(run_line(run, run, bundle.task is not None))


def _export_graph(run: Path, out: Path, request: GraphRequest, licence: str | None, json: Path | None) -> None:
    from dataclasses import asdict, replace

    from ..export.exporting import trained_bundle
    from ..export.graph_card import save_card
    from ..export.graph_export import export_graph
    from ..runs.closing_table import print_table, write_json

    bundle = trained_bundle(run)
    bundle = replace(bundle, licence=licence or bundle.licence)
    index, label = request.clips()
    exported = export_graph(bundle, out, request.form, request.encoder_only, index)
    facts = {
        "inputs": ", ".join(("present", *bundle.backbone.modalities)),
        "outputs": ", ".join(exported.outputs),
        "weights": bundle.provenance.get("weights", "as the bundle has them"),
        "bytes": exported.bytes,
        "largest difference on noise": exported.noise,
        "largest difference on clips": exported.clips,
    }
    print_table(f"{run} exported to {out}", ("figure", "value"), list(facts.items()))
    content: dict[str, object] = {"graph": asdict(exported)}
    cost = None
    if request.int8:
        from ..export.int8 import quantise

        cost = quantise(bundle, out, index, label)
        title = f"{cost.path}, on {cost.windows} windows of {cost.source}"
        print_table(title, ("figure", "fp32", "int8"), cost.rows())
        if index is None:
            typer.echo("noise tells little of accuracy: give --shards SHARDS to measure it on clips")
        content["int8"] = asdict(cost)
    typer.echo(f"model card: {save_card(bundle, exported, cost)}")
    write_json(json, content)
    scored = bundle.task is not None and not request.encoder_only and request.form == "onnx"
    typer.echo(model_line(out, classifier=True) if scored else run_line(run, run, bundle.task is not None))
