"""`modalgate export`: a trained model in the forms that others take."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `pretrain` or `finetune`.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder; with --modality a .safetensors file.")],
    modality: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this modality's network, for timm or torchvision.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="Terms for the model card, such as CC-BY-4.0.")
    ] = None,
    json: Json = None,
) -> None:
    """Write a run's encoder or classifier as a bundle, checked against its checkpoint; or a single network of it."""
    if modality is not None:
        _export_single(run, out, modality, json)
    else:
        _export_bundle(run, out, licence, json)


def _export_bundle(run: Path, out: Path, licence: str | None, json: Path | None) -> None:
    from ..fusion.bundle import count_parameters
    from .exporting import export_bundle
    from .tables import print_table, write_json

    bundle, difference = export_bundle(run, out, licence)
    facts = {
        "kind": bundle.task or "encoder",
        "modalities": ", ".join(bundle.backbone.modalities),
        "fusion": bundle.backbone.spec.fusion,
        "parameters": count_parameters(bundle.model),
        "largest difference": difference,
        "licence": bundle.licence or "not stated (--license)",
    }
    print_table(f"{run} exported to {out}", ("figure", "value"), list(facts.items()))
    write_json(json, facts)


def _export_single(run: Path, out: Path, modality: str, json: Path | None) -> None:
    from ..fusion.bundle import load_bundle
    from ..fusion.single import save_single
    from .exporting import find_model
    from .tables import write_json

    lines = save_single(load_bundle(find_model(run)), modality, out)
    typer.echo(f"{modality} of {run} exported to {out}. It loads with:\n")
    typer.echo("".join(f"    {line}\n" for line in lines))
    write_json(json, {"modality": modality, "file": out, "use": lines})
