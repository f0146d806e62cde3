"""`modalgate config`: the shipped configs, one resolved and explained, one checked, and all keys."""

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="CONFIG", help="A shipped config's name, or a YAML file or run folder.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings over it, such as train.steps=100.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Without the comments that explain the keys.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def list_shipped(json: Json = None) -> None:
    """List the shipped configs."""
    from ..config.load import list_configs
    from ..runs.closing_table import print_table, write_json

    rows, columns = list_configs(), ("name", "kind", "description")
    print_table("Shipped configs", columns, rows, width=80)
    write_json(json, [dict(zip(columns, row, strict=True)) for row in rows])


def show(config: Name, overrides: Overrides = None, plain: Plain = False) -> None:
    """Print a config with all its keys as YAML, what each means, and what its model costs."""
    from ..config.load import show_config

    typer.echo(show_config(config, overrides or [], plain), nl=False)
    from ..jobs.model_size import describe_model  # imports torch: a wrong key is named before that takes its seconds

    for line in describe_model(config, overrides or []):
        typer.echo(f"# {line}")


def check(config: Name, overrides: Overrides = None) -> None:
    """Check a config's keys, types and ranges, and the tasks and fusions it names."""
    from ..config.load import check_config, config_kind, partial_config

    missing = check_config(config, overrides or [])
    from ..config.config_names import check_names  # imports torch: a wrong key is named before that takes its seconds

    check_names(partial_config(config, overrides or []))
    kind, how = config_kind(config, overrides or [])
    typer.echo(f"config '{config}' is valid for `modalgate {kind}`" + (f" (kind not given: {how})" if how else ""))
    if missing:
        typer.echo(f"to be given: {' '.join(f'{key}=VALUE' for key in missing)}")


def reference() -> None:
    """Print the page of all config keys, pretext tasks and fusions as Markdown."""
    from ..config.config_reference import reference_page

    typer.echo(reference_page(), nl=False)
