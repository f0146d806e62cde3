"""`export`: a trained model as a bundle, a graph, or the network of one modality."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

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


def check_free(out: Path, graph: bool, int8: bool, overwrite: bool) -> None:
    """Raises `RequestError` if there is a model at `out`, or of a graph its card or quantised twin, and not
    `overwrite`.

    A folder with anything but a bundle is never replaced.
    """
    places = [out, *([card_path(out)] if graph else []), *([int8_path(out)] if int8 else [])]
    for place in places:
        if not place.is_dir() or (place / FACTS).is_file():
            keep_results(place, "OUT", overwrite)


def write_bundle(run: Path, out: Path, licence: str | None, json: Path | None) -> None:
    """The model of `run` as a bundle in `out`; see `export_bundle`."""
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


def write_single(run: Path, out: Path, modality: str, json: Path | None) -> None:
    """The network of one modality as a state dict, and the lines of Python that load it."""
    bundle = trained_bundle(run)
    lines = save_single(bundle, modality, out)
    typer.echo(f"{modality} of {run} exported to {out}. It loads with:\n")
    typer.echo("".join(f"    {line}\n" for line in lines))
    write_json(json, {"modality": modality, "file": out, "use": lines})
    typer.echo(run_line(run, run, bundle.task is not None))


def write_graph(run: Path, out: Path, request: GraphRequest, licence: str | None, json: Path | None) -> None:
    """The model of `run` as a graph in `out`, compared with the model, and its model card."""
    from .graph_card import save_card
    from .graph_export import export_graph

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
        from .int8 import quantise

        cost = quantise(bundle, out, index, label)
        title = f"{cost.path}, on {cost.windows} windows of {cost.source}"
        print_table(title, ("figure", "fp32", "int8"), cost.rows())
        if index is None:
            typer.echo("noise says little about accuracy: give --shards SHARDS to measure it on clips")
        content["int8"] = asdict(cost)
    typer.echo(f"model card: {save_card(bundle, exported, cost)}")
    write_json(json, content)
    scored = bundle.task is not None and not request.encoder_only and request.form == "onnx"
    typer.echo(model_line(out, classifier=True) if scored else run_line(run, run, bundle.task is not None))
