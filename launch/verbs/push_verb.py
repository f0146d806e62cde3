"""`modalgate push`: an exported bundle to the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from ..runs.next_step import model_line
from .export_verb import Json


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `modalgate export` wrote.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A model repository, made if need be.")],
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Another branch than main.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Of a new repository: not for everybody.")] = False,
    json: Json = None,
) -> None:
    """Write a bundle to the Hugging Face Hub; `hf://OWNER/NAME` then stands for it wherever a bundle can."""
    from ...fusion.bundle.hub import Repository
    from .first_checks import check_bundle

    place = Repository(repository.removeprefix("hf://"), revision)
    check_bundle(bundle)
    from ...fusion.bundle.bundle import load_bundle, push_bundle
    from ..runs.closing_table import write_json

    commit = push_bundle(bundle, place, private=private)
    typer.echo(f"{bundle} is at {commit}\nload_bundle('{place}') or load_encoder('{place}') loads it")
    write_json(json, {"repository": place.name, "revision": revision, "commit": commit})
    typer.echo(model_line(str(place), load_bundle(bundle).task is not None))
