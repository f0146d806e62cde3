"""`auto`: all commands in a row on a user's own folder, within a number of minutes."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from ...shards.errors import choice_error
from ..runs.next_step import next_line

# Shares of the time left after packing. Probe, scoring, export and report use the rest.
PRETRAINING, FINETUNING = 0.3, 0.5
# Fewer steps than this train nothing useful.
FEWEST_STEPS = 100
FEWEST_FOLDS = 2


@dataclass(frozen=True)
class Plan:
    """Length of training."""

    steps: int
    """Steps of each model."""
    folds: int
    """Number of models."""
    short: bool
    """Whether even that exceeds the budget."""


@dataclass(frozen=True)
class AutoRequest:
    """Options of `auto`."""

    folder: Path
    """Folder of recordings."""
    out: Path | None = None
    """Output folder. Default: FOLDER-modalgate."""
    label: str | None = None
    """Label column to learn."""
    positive: str | None = None
    """Class to detect."""
    minutes: float = 20.0
    """Time budget."""
    preset: str = "tiny"
    """Size of the networks."""
    workers: int = 1
    """Processes that decode."""


def run_auto(request: AutoRequest, run_verb: Callable[[list[str]], object], json: Path | None = None) -> None:
    """Packs, pretrains, probes, fine-tunes, exports and reports by the commands themselves; finished steps are kept.

    `run_verb`: runs one command line. Raises `RequestError` for an unknown preset, and what the commands raise.
    """
    from ...fusion.spec import PRESETS
    from ...shards.index.labels import LABEL, label_candidates, label_column
    from ...shards.index.table import load_index
    from ..runs.closing_table import write_json

    folder, minutes, positive = request.folder, request.minutes, request.positive

    def run(*words: object) -> None:
        _run(run_verb, [str(word) for word in words])

    if request.preset not in PRESETS:
        raise choice_error("preset", request.preset, PRESETS)
    began = time.monotonic()
    out = request.out or folder.with_name(f"{folder.resolve().name}-modalgate")
    out.mkdir(parents=True, exist_ok=True)
    shards, runs = out / "shards", out / "runs"
    run("pack", folder, shards)
    index = load_index(shards)
    column = label_column(index, request.label or LABEL) if request.label or label_candidates(index) else None
    left = 60 * minutes - (time.monotonic() - began)
    shared = [f"out={runs}", f"data.workers={request.workers}", f"model.preset={request.preset}"]
    share = PRETRAINING if column else PRETRAINING + FINETUNING
    if (runs / "pretrain" / "encoder").is_dir():
        typer.echo(f"\n{runs / 'pretrain'} is finished and kept")
    elif (runs / "pretrain" / "config.yaml").is_file():
        run("pretrain", runs / "pretrain", "--resume")
    else:
        run("pretrain", shards, *shared, *_shortened("pretrain", shards, shared, share * left))
    encoder = runs / "pretrain"
    if column is None:
        typer.echo("\nno label column with two or more values: skipping probe and fine-tuning")
        run("report", encoder, "--out", out / "report.html")
        typer.echo(f"\nencoder: {encoder / 'encoder'}\n{next_line('embed', encoder, folder, out / 'features.npz')}")
        return
    run("probe", encoder, shards, "--label", column)
    left = max(60 * minutes - (time.monotonic() - began), 60.0)
    tuned, figures = runs / "finetune", out / "finetune.json"
    if (tuned / "config.yaml").is_file():
        # With the run's own settings, not newly chosen ones: finished folds are kept.
        run("finetune", tuned, "--final", "--json", figures, "--resume")
    else:
        settings = [f"data.label={column}", f"encoder={encoder}"]
        settings += [f"positive={positive}", "task=violence"] if positive else []
        fitting = _shortened("finetune", shards, [*shared[:2], *settings], left * FINETUNING / (1 - PRETRAINING))
        words = ["--label", column, "--encoder", encoder, *(["--positive", positive] if positive else [])]
        run("finetune", shards, *shared[:2], *fitting, *words, "--final", "--json", figures)
    classifier = out / "classifier"
    run("export", tuned, classifier, *(["--overwrite"] if classifier.is_dir() else []))
    run("report", tuned, encoder, "--out", out / "report.html")
    write_json(json, {"seconds": time.monotonic() - began, "label": column, "out": str(out)})
    typer.echo(f"\ntook {(time.monotonic() - began) / 60:.1f} minutes; report: {out / 'report.html'}")
    typer.echo(next_line("predict", out / "classifier", _first_file(folder)))


def plan_steps(chosen: int, folds: int, seconds: float, budget: float) -> Plan:
    """The plan that fits into `budget` seconds at `seconds` per step.

    All `chosen` steps of all `folds` models if they fit, else fewer steps, then fewer folds when steps are too few.
    One more model is trained at the end, on all clips.
    """
    models = folds + 1 if folds > 1 else 1
    steps = int(budget / (seconds * models))
    while folds > FEWEST_FOLDS and steps < min(FEWEST_STEPS, chosen):
        folds -= 1
        steps = int(budget / (seconds * (folds + 1)))
    floor = min(FEWEST_STEPS, chosen)
    return Plan(min(max(steps, floor), chosen), folds, steps < floor)


def _shortened(kind: str, shards: Path, settings: Sequence[str], budget: float) -> list[str]:
    """Settings that shorten a training to `budget` seconds; empty if it fits."""
    from ..config.load import load_config
    from ..schema import FinetuneConfig, PretrainConfig

    config = load_config(kind, None, [f"data.shards={shards}", *settings])
    if isinstance(config, PretrainConfig):
        from ..jobs.pretraining import pretraining_pace

        pace, folds = pretraining_pace(config), 1
    else:
        from ..finetune.finetuning import finetuning_pace

        assert isinstance(config, FinetuneConfig)
        pace, folds = finetuning_pace(config)
    plan = plan_steps(config.train.steps, folds, pace, budget)
    models = f"{folds} folds and a final model of " if folds > 1 else ""
    typer.echo(
        f"\n{kind}: {pace:.2f} s per step; {models}{config.train.steps} steps would take "
        f"{pace * config.train.steps * (folds + (folds > 1)) / 60:.0f} minutes of {budget / 60:.0f}"
    )
    if plan.short:
        typer.echo(f"warning: {plan.steps} steps take longer than --minutes: give more minutes")
    shorter = [f"train.steps={plan.steps}"] if plan.steps < config.train.steps else []
    return [*shorter, *([f"data.folds={plan.folds}"] if plan.folds < folds else [])]


def _run(run_verb: Callable[[list[str]], object], arguments: list[str]) -> None:
    """Prints a command line and runs it."""
    typer.secho(f"\n$ {shlex.join(['modalgate', *arguments])}", bold=True)
    before = sys.argv
    sys.argv = ["modalgate", *arguments]  # the run folder records this command
    try:
        run_verb(arguments)
    finally:
        sys.argv = before


def _first_file(folder: Path) -> Path:
    from ...shards.packing.sources import find_sources

    return next(source.path for source in find_sources(folder) if not source.problem)
