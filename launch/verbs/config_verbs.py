"""`modalgate config`: list, show and check configs, and print all keys."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from .shared_options import Json

Name = Annotated[str, typer.Argument(metavar="CONFIG", help="A shipped config's name, a YAML file or a run folder.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings to change, such as train.steps=100.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Without the comments that explain the keys.")]


def list_shipped(json: Json = None) -> None:
    """List the shipped configs."""
    from ..config.load import list_configs
    from ..runs.closing_table import print_table, write_json

    rows, columns = list_configs(), ("name", "kind", "description")
    print_table("Shipped configs", columns, rows, width=80)
    write_json(json, [dict(zip(columns, row, strict=True)) for row in rows])


def show(config: Name, overrides: Overrides = None, plain: Plain = False) -> None:
    """Print a config with all its keys as YAML, their meaning, and the model's size."""
    from ..config.load import show_config

    typer.echo(show_config(config, overrides or [], plain), nl=False)
    from ..jobs.model_size import describe_model  # imports torch, so it comes after the errors

    for line in describe_model(config, overrides or []):
        typer.echo(f"# {line}")


def check(config: Name, overrides: Overrides = None) -> None:
    """Check a config's keys, values and names, and with data.shards all that its run builds."""
    from ..config.load import check_config, config_kind, partial_config

    missing = check_config(config, overrides or [])
    content = partial_config(config, overrides or [])
    from ..jobs.first_checks import check_early

    check_early(content)
    from ..config.config_names import check_names  # imports torch, so it comes after the errors

    check_names(content)
    unbuilt = check_run(config, overrides or [])
    kind, how = config_kind(config, overrides or [])
    typer.echo(f"config '{config}' is valid for `modalgate {kind}`" + (f" (kind not given: {how})" if how else ""))
    if unbuilt and not missing:
        typer.echo(f"note: not checked against clips: {unbuilt}", err=True)
    if missing:
        typer.echo(f"still missing: {' '.join(f'{key}=VALUE' for key in missing)}")


def reference(
    classes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLASS]...", help="Only your own classes, package.module:Class."),
    ] = None,
) -> None:
    """Print all config keys, pretext tasks and fusions as Markdown."""
    from ..config.config_reference import reference_page

    typer.echo(reference_page(classes or []), nl=False)


def check_run(name_or_path: str, overrides: Sequence[str] = ()) -> str:
    """Builds what the first training of a run builds: clips, splits, model, tasks and stream. Nothing is written.

    Returns why nothing was built: without the shards there is nothing to build from; else an empty text. Published
    weights are not read. Raises what the run would raise before its first step.
    """
    from omegaconf import OmegaConf

    from ...shards.errors import RequestError
    from ...shards.index.table import load_index
    from ..config.config_names import unpublished
    from ..config.load import partial_config
    from ..schema import FinetuneConfig, PretrainConfig

    node: Any = partial_config(name_or_path, overrides)
    if OmegaConf.missing_keys(node):
        return "data.shards is missing"
    try:
        load_index(node.data.shards)
    except RequestError as error:
        return str(error)
    config: Any = OmegaConf.to_object(node)
    if config.model is not None:
        encoders = {name: unpublished(spec) for name, spec in config.model.encoders.items()}
        config = replace(config, model=replace(config.model, encoders=encoders))
    if isinstance(config, PretrainConfig):
        from ..jobs.pretraining import check_pretraining

        check_pretraining(config)
    elif isinstance(config, FinetuneConfig):
        from ..finetune.finetuning import check_finetuning

        check_finetuning(config)
    else:
        from ..jobs.study_job import check_study

        check_study(config)
    return ""
