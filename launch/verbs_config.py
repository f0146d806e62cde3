"""`modalgate config`: the shipped configs, one resolved, one checked."""

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="CONFIG", help="A shipped config's name, or a YAML file or run folder.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings over it, such as train.steps=100.")
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def list_shipped(json: Json = None) -> None:
    """List the shipped configs."""
    from .config import list_configs
    from .tables import print_table, write_json

    rows = list_configs()
    print_table("Shipped configs", ("name", "verb", "what it does"), rows)
    write_json(json, [dict(zip(("name", "kind", "description"), row, strict=True)) for row in rows])


def show(config: Name, overrides: Overrides = None) -> None:
    """Print a config with all its defaults as YAML, and what its model costs."""
    from .config import show_config
    from .model_size import describe_model

    typer.echo(show_config(config, overrides or []), nl=False)
    for line in describe_model(config, overrides or []):
        typer.echo(f"# {line}")


def check(config: Name, overrides: Overrides = None) -> None:
    """Check a config's keys, types and ranges."""
    from .config import check_config

    missing = check_config(config, overrides or [])
    typer.echo(f"config '{config}' is valid" + (f"; still to be given: {', '.join(missing)}" if missing else ""))
