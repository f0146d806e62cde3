"""`modalgate pretrain` and `finetune`."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from ..shards.credentials import masked
from ..shards.errors import RequestError, choice_error
from .next_step import encoder_line, finetune_line, model_line, next_line

Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A shipped config's name, or a YAML file or run folder.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings over it, such as data.shards=FOLDER.")
]
Resume = Annotated[
    str,
    typer.Option(
        metavar="[auto]", help="Go on from the run's newest checkpoint; with `auto`, start where there is no run yet."
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Resume with this setting changed; may be given several times."),
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same result twice on a GPU too, at some cost in speed.")
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def command_line() -> list[str]:
    """The command as a person would type it again, less the credentials of URLs."""
    return ["modalgate", *(masked(argument) for argument in sys.argv[1:])]


def resuming_command() -> str:
    """The command line to type for going on with an interrupted run."""
    from .device import ranks

    words: list[str] = []
    for before, word in pairwise(command_line()):
        # What was accepted is in the run's own settings by now.
        taken = before == "--accept" or (before, word) == ("--resume", "auto")
        if not taken and word.partition("=")[0] not in ("--accept", "--resume"):
            words.append(word)
    start = f"torchrun --nproc_per_node {ranks()[1]} -m modalgate.launch.cli" if ranks()[1] > 1 else "modalgate"
    return f"{start} {shlex.join(words)} --resume"


@contextmanager
def summed_up(run: Path, log_every: int) -> Iterator[None]:
    """Where the work inside is interrupted: how far it came, where its checkpoint is and what to type next."""
    from .device import ranks

    try:
        yield
    except KeyboardInterrupt:
        # Folds lie in folders of their own; the newest is the one that was under way.
        from .checkpoint import latest_checkpoint
        from .tables import print_table
        from .tracking import read_metrics

        found = [folder for folder in (run, *run.glob("*/")) if (folder / "checkpoints").is_dir()]
        under_way = max(found, key=lambda folder: (folder / "checkpoints").stat().st_mtime, default=None)
        if ranks()[0] == 0 and under_way is not None:
            last = next((line for line in reversed(read_metrics(under_way)) if "loss" in line), {})
            rows = [(name, value) for name, value in last.items() if name.endswith("loss") or name == "step"]
            print_table(f"{under_way}: interrupted; mean of {log_every} steps", ("figure", "value"), rows)
            typer.echo(f"checkpoint: {latest_checkpoint(under_way)}\nnext: {resuming_command()}")
        raise


def resumes(resume: str, accept: list[str] | None, run: Path, settings: dict[str, Any]) -> bool:
    """Whether the run is gone on with; what of it may change is written into its folder first."""
    from .run_folder import accept_changes

    if resume not in ("", "yes", "auto"):
        raise choice_error("value of --resume", resume, ("auto",))
    going_on = resume == "yes" or (resume == "auto" and (run / "config.yaml").is_file())
    if accept and not resume:
        raise RequestError("--accept is for a run that is gone on with: add --resume")
    if accept and going_on:
        from .device import ranks  # with torch, which an error must not wait for

        if ranks()[0] == 0:
            accept_changes(run, settings, accept)
    return going_on


def pretrain(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = "",
    accept: Accept = None,
    deterministic: Deterministic = False,
    json: Json = None,
) -> None:
    """Train an encoder without labels, by the config's pretext tasks."""
    from .config import load_config, settings_of
    from .first_checks import check_config
    from .run_folder import run_folder
    from .schema import PretrainConfig
    from .tables import print_table, write_json

    settings = load_config("pretrain", config, [*(overrides or []), *(["train.deterministic=true"] * deterministic)])
    assert isinstance(settings, PretrainConfig)
    run = run_folder(settings)
    again = resumes(resume, accept, run, settings_of(settings))
    check_config(settings, again)
    from ..shards.index import load_index
    from ..tasks.run_facts import read_warnings
    from .device import ranks
    from .pretraining import pretrain as run_pretraining

    with summed_up(run, settings.train.log_every):
        last = run_pretraining(settings, command_line(), again)
    if ranks()[0]:
        return  # one process speaks for all
    rows = [
        (name, value, last.get(f"{name.removesuffix('accuracy')}chance") if name.endswith("/accuracy") else None)
        for name, value in last.items()
        if name not in ("loss", "learning_rate", "gradient_norm") and not name.endswith("/chance")
    ]
    print_table(f"{run}: mean of the last {settings.train.log_every} steps", ("figure", "value", "chance"), rows)
    write_json(json, last | {"warnings": read_warnings(run)})
    if "splits" in last:
        data = settings.data
        same = (f"data.folds={data.folds or 0}", f"data.group={data.group}", f"seed={settings.seed}")
        same += ("data.leave_one_out=true",) * data.leave_one_out + ("data.leaky=true",) * data.leaky
        same += (f"data.lists=[{','.join(data.lists)}]",) if data.lists else ()
        typer.echo(f"encoders: {run}/*/encoder\n{finetune_line(run, data.shards, data.label, *same)}")
        return
    line = encoder_line(run / "encoder", settings.data.shards, load_index(settings.data.shards))
    typer.echo(f"encoder: {run / 'encoder'}\n{line}")


def study(config: Config, overrides: Overrides = None, resume: Resume = "", json: Json = None) -> None:
    """Compare fusion mechanisms and single modalities over seeds and folds."""
    from .config import load_config
    from .first_checks import check_config
    from .run_folder import run_folder
    from .schema import StudyConfig
    from .tables import print_table, write_json

    settings = load_config("study", config, overrides or [])
    assert isinstance(settings, StudyConfig)
    run = run_folder(settings)
    again = resumes(resume, None, run, {})
    check_config(settings, again)
    from .logbook import warn
    from .study import study as run_study

    done = run_study(settings, command_line(), again)
    rows = [
        (
            row.name,
            f"{row.value.value:.3f} [{row.value.low:.3f}, {row.value.high:.3f}]",
            "-" if row.against is None else f"{row.against.value:+.3f}",
            "-" if row.adjusted is None else f"{row.adjusted:.2g}",
            f"{row.noise_area:.3f}",
            f"{row.cost.milliseconds:.1f}",
        )
        for row in done.rows
    ]
    columns = ("row", f"{settings.metric} [95 %]", f"vs {done.best}", "p (Holm)", "noise area", "ms")
    print_table(f"{run}: {done.result.tables[0].note.partition(';')[0]}", columns, rows)
    for line in done.result.warnings:
        warn(line)
    write_json(json, {row.name: asdict(row) | {"noise_area": row.noise_area} for row in done.rows})
    typer.echo(f"tables: {run / 'study.md'}, study.csv, study.json\n{next_line('report', run)}")


def finetune(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = "",
    accept: Accept = None,
    deterministic: Deterministic = False,
    json: Json = None,
) -> None:
    """Train a classifier with labels, from a pretrained encoder or from nothing."""
    from .config import load_config, settings_of
    from .first_checks import check_config
    from .run_folder import run_folder
    from .schema import FinetuneConfig
    from .tables import print_table, write_json

    settings = load_config("finetune", config, [*(overrides or []), *(["train.deterministic=true"] * deterministic)])
    assert isinstance(settings, FinetuneConfig)
    run = run_folder(settings)
    again = resumes(resume, accept, run, settings_of(settings))
    check_config(settings, again)
    from ..tasks.run_facts import read_warnings
    from .device import ranks
    from .finetuning import CHOSEN
    from .finetuning import finetune as run_finetuning
    from .logbook import warn

    with summed_up(run, settings.train.log_every):
        done = run_finetuning(settings, command_line(), again)
    if ranks()[0]:
        return
    for table in done.result.tables:
        print_table(f"{run}: {table.note}", table.columns, table.rows)
    chosen = {str(row[0]): row[1] for table in done.result.tables if table.title == CHOSEN for row in table.rows}
    for line in done.result.warnings:
        warn(line)
    figures = {
        "metrics": done.metrics,
        "intervals": done.intervals,
        "chances": done.chances,
        "clips": len(done.scores.keys),
        "warnings": [*read_warnings(run), *done.result.warnings],
    }
    write_json(json, figures | ({"chosen": chosen} if chosen else {}))
    folder = run if (run / "encoder").is_dir() else sorted(run.glob("*/encoder"))[0].parent
    typer.echo(f"classifier: {folder / 'encoder'}\n{model_line(folder / 'encoder', classifier=True)}")
