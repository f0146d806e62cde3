"""`auto`: the whole way on a person's own folder, by the verbs themselves, within a number of minutes."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ...shards.errors import choice_error
from ..runs.next_step import next_line
from ..verbs.run_verb import run_verb

# Shares of the time that is left after packing. Probe, scoring, export and report take the rest.
PRETRAINING, FINETUNING = 0.3, 0.5
# A training of fewer steps than this learns nothing worth a table.
FEWEST_STEPS = 100
FEWEST_FOLDS = 2


@dataclass(frozen=True)
class Plan:
    """How long to train: `steps` of each of `folds` models; `short`: whether even that is more than fits."""

    steps: int
    folds: int
    short: bool


def auto(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Your recordings, with or without a labels.csv.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where all goes; FOLDER-modalgate by default.", show_default=False),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column to learn; `label` if there is one.", show_default=False),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Of two classes, the one to detect.", show_default=False),
    ] = None,
    minutes: Annotated[float, typer.Option(min=1, help="Time to aim at; trainings are shortened to fit.")] = 20.0,
    preset: Annotated[str, typer.Option(help="Size of the networks: tiny, small or base.")] = "tiny",
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode while a training runs.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")] = None,
) -> None:
    """Pack a folder, pretrain, probe, fine-tune, export and report: everything chosen. Rerun to resume."""
    from ...shards.index.labels import LABEL, label_candidates, label_column
    from ...shards.index.table import load_index
    from ..config.defaults import SIZES
    from ..runs.closing_table import write_json

    if preset not in SIZES:
        raise choice_error("preset", preset, SIZES)
    began = time.monotonic()
    out = out or folder.with_name(f"{folder.resolve().name}-modalgate")
    out.mkdir(parents=True, exist_ok=True)
    shards, runs = out / "shards", out / "runs"
    _run(context, "pack", folder, shards)
    index = load_index(shards)
    column = label_column(index, label or LABEL) if label or label_candidates(index) else None
    left = 60 * minutes - (time.monotonic() - began)
    shared = [f"out={runs}", f"data.workers={workers}", f"model.preset={preset}"]
    share = PRETRAINING if column else PRETRAINING + FINETUNING
    if (runs / "pretrain" / "encoder").is_dir():
        typer.echo(f"\n{runs / 'pretrain'} is finished: it is kept")
    elif (runs / "pretrain" / "config.yaml").is_file():
        _run(context, "pretrain", runs / "pretrain", "--resume")
    else:
        _run(context, "pretrain", shards, *shared, *_shortened("pretrain", shards, shared, share * left))
    encoder = runs / "pretrain"
    if column is None:
        typer.echo("\nno label column with two values or more: probe and fine-tuning need one")
        _run(context, "report", encoder, "--out", out / "report.html")
        typer.echo(f"\nencoder: {encoder / 'encoder'}\n{next_line('embed', encoder, folder, out / 'features.npz')}")
        return
    _run(context, "probe", encoder, shards, "--label", column)
    left = max(60 * minutes - (time.monotonic() - began), 60.0)
    tuned, figures = runs / "finetune", out / "finetune.json"
    if (tuned / "config.yaml").is_file():
        # With the settings of the run, whatever would be chosen now: finished folds are kept.
        _run(context, "finetune", tuned, "--final", "--json", figures, "--resume")
    else:
        settings = [f"data.label={column}", f"encoder={encoder}"]
        settings += [f"positive={positive}", "task=violence"] if positive else []
        fitting = _shortened("finetune", shards, [*shared[:2], *settings], left * FINETUNING / (1 - PRETRAINING))
        words = ["--label", column, "--encoder", encoder, *(["--positive", positive] if positive else [])]
        _run(context, "finetune", shards, *shared[:2], *fitting, *words, "--final", "--json", figures)
    _run(context, "export", tuned, out / "classifier")
    _run(context, "report", tuned, encoder, "--out", out / "report.html")
    write_json(json, {"seconds": time.monotonic() - began, "label": column, "out": str(out)})
    typer.echo(f"\ntook {(time.monotonic() - began) / 60:.1f} minutes; report: {out / 'report.html'}")
    typer.echo(next_line("predict", out / "classifier", _first_file(folder)))


def plan_steps(chosen: int, folds: int, seconds: float, budget: float) -> Plan:
    """What fits into `budget` seconds at `seconds` per step: all `chosen` steps of all `folds` models, else fewer
    steps, and fewer folds where they would be too few to learn. One more model is trained at the end, on all clips.
    """
    models = folds + 1 if folds > 1 else 1
    steps = int(budget / (seconds * models))
    while folds > FEWEST_FOLDS and steps < min(FEWEST_STEPS, chosen):
        folds -= 1
        steps = int(budget / (seconds * (folds + 1)))
    floor = min(FEWEST_STEPS, chosen)
    return Plan(min(max(steps, floor), chosen), folds, steps < floor)


def _shortened(kind: str, shards: Path, settings: Sequence[str], budget: float) -> list[str]:
    """Settings that shorten a training to `budget` seconds; none where it fits as it is chosen."""
    from ..config.load import load_config
    from ..schema import FinetuneConfig, PretrainConfig

    config = load_config(kind, None, [f"data.shards={shards}", *settings])
    if isinstance(config, PretrainConfig):
        from ..jobs.pretraining import pretraining_pace

        pace, folds = pretraining_pace(config), 1
    else:
        from ..finetune.recipe import finetuning_pace

        assert isinstance(config, FinetuneConfig)
        pace, folds = finetuning_pace(config)
    plan = plan_steps(config.train.steps, folds, pace, budget)
    models = f"{folds} folds and a final model of " if folds > 1 else ""
    typer.echo(
        f"\n{kind}: {pace:.2f} s per step; {models}{config.train.steps} steps would take "
        f"{pace * config.train.steps * (folds + (folds > 1)) / 60:.0f} minutes of {budget / 60:.0f}"
    )
    if plan.short:
        typer.echo(f"warning: {plan.steps} steps are more than fit: give --minutes more time")
    shorter = [f"train.steps={plan.steps}"] if plan.steps < config.train.steps else []
    return [*shorter, *([f"data.folds={plan.folds}"] if plan.folds < folds else [])]


def _run(context: typer.Context, *words: object) -> None:
    """Runs one verb as if it had been typed, and shows the line."""
    arguments = [str(word) for word in words]
    typer.secho(f"\n$ {shlex.join(['modalgate', *arguments])}", bold=True)
    before = sys.argv
    sys.argv = ["modalgate", *arguments]  # the run folder records the line that would make it
    try:
        run_verb(context.find_root().command, arguments)
    finally:
        sys.argv = before


def _first_file(folder: Path) -> Path:
    from ...shards.packing.sources import find_sources

    return next(source.path for source in find_sources(folder) if not source.problem)
