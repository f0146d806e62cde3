"""`modalgate pretrain` and `finetune`."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...shards.errors import RequestError, choice_error
from ...shards.index.table import INDEX_NAME
from ...shards.media.credentials import masked
from ..runs.next_step import encoder_line, finetune_line, model_line, next_line

if TYPE_CHECKING:
    from ..config.defaults import Choice

Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A shipped config's name, or a YAML file or run folder.")
]
Start = Annotated[
    str,
    typer.Argument(
        metavar="SHARDS|CONFIG",
        help="Packed shards, to choose all settings from; or a shipped config, a YAML file, a run folder.",
    ),
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
Final = Annotated[
    bool, typer.Option("--final", help="Afterwards train one more classifier on all labelled clips, for use.")
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def command_line() -> list[str]:
    """The command as a person would type it again, less the credentials of URLs."""
    return ["modalgate", *(masked(argument) for argument in sys.argv[1:])]


def resuming_command() -> str:
    """The command line to type for going on with an interrupted run."""
    from ..training.device import ranks

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
    from ..training.device import ranks

    try:
        yield
    except KeyboardInterrupt:
        # Folds lie in folders of their own; the newest is the one that was under way.
        from ..runs.closing_table import print_table
        from ..runs.metric_log import read_metrics
        from ..training.checkpoint import latest_checkpoint

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
    from ..runs.folder import accept_changes

    if resume not in ("", "yes", "auto"):
        raise choice_error("value of --resume", resume, ("auto",))
    going_on = resume == "yes" or (resume == "auto" and (run / "config.yaml").is_file())
    if accept and not resume:
        raise RequestError("--accept is for a run that is gone on with: add --resume")
    if accept and going_on:
        from ..training.device import ranks  # with torch, which an error must not wait for

        if ranks()[0] == 0:
            accept_changes(run, settings, accept)
    return going_on


def start_of(start: str, overrides: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """The config that `start` names, none where it names shards, and the settings over it.

    A folder that holds an index, a URL, and a list such as [a,b] are shards; `key=value` in its place is a setting.
    """
    settings = list(overrides or [])
    if "=" in start:
        return None, [start, *settings]
    if "://" in start or (Path(start) / INDEX_NAME).is_file() or start.startswith("["):
        return None, [f"data.shards={start}", *settings]
    if Path(start).is_dir() and not (Path(start) / "config.yaml").is_file():
        raise RequestError(f"'{start}' holds neither shards nor a run: give a folder that `modalgate pack` wrote")
    return start, settings


def print_choices(choices: "list[Choice]") -> None:
    """What was chosen from the shards, a line per setting, on the first process."""
    from ..config.defaults import describe

    if choices and os.environ.get("RANK", "0") == "0":
        typer.echo("chosen from the shards (give KEY=VALUE to change one):")
        for line in describe(choices):
            typer.echo(f"  {line}")


def pretrain(
    config: Start,
    overrides: Overrides = None,
    resume: Resume = "",
    accept: Accept = None,
    deterministic: Deterministic = False,
    json: Json = None,
) -> None:
    """Train an encoder without labels, by the config's pretext tasks."""
    from ..config.load import load_config, settings_of
    from ..runs.closing_table import print_table, write_json
    from ..runs.folder import run_folder
    from ..schema import PretrainConfig
    from .first_checks import check_config

    name, given = start_of(config, overrides)
    settings = load_config("pretrain", name, [*given, *(["train.deterministic=true"] * deterministic)], print_choices)
    assert isinstance(settings, PretrainConfig)
    run = run_folder(settings)
    if accept:
        from ..jobs.adapting import adapt_modalities
        from ..jobs.pretraining import pretraining_clips

        settings, _ = adapt_modalities(settings, pretraining_clips(settings.data))
    again = resumes(resume, accept, run, settings_of(settings))
    check_config(settings, again)
    from ...shards.index.table import load_index
    from ...tasks.report.provenance import read_warnings
    from ..jobs.pretraining import pretrain as run_pretraining
    from ..training.device import ranks

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
    from ..config.load import load_config
    from ..runs.closing_table import print_table, write_json
    from ..runs.folder import run_folder
    from ..schema import StudyConfig
    from .first_checks import check_config

    settings = load_config("study", config, overrides or [])
    assert isinstance(settings, StudyConfig)
    run = run_folder(settings)
    again = resumes(resume, None, run, {})
    check_config(settings, again)
    from ...tasks.fusion_study.study_summary import Comparison, study_record
    from ..jobs.study_job import study as run_study
    from ..runs.logbook import warn

    def compared(found: Comparison | None) -> tuple[str, str]:
        return ("-", "-") if found is None else (f"{found.difference.value:+.3f}", f"{found.adjusted:.2g}")

    done = run_study(settings, command_line(), again)
    references = done.references
    rows = [
        (
            row.name,
            f"{row.value.value:.3f} [{row.value.low:.3f}, {row.value.high:.3f}]",
            f"{references.chance:.3f}",
            *compared(row.against_test_best),
            *compared(row.against_validation_best),
            f"{row.noise_area:.3f}",
            f"{row.cost.milliseconds:.1f}",
        )
        for row in done.rows
    ]
    strict, chosen = references.test_best, references.validation_best
    columns = ["row", f"{settings.metric} [95 %]", "chance", f"vs {strict}, best on test", "p (Holm)"]
    columns += [f"vs {chosen}, best on validation", "p (Holm)", "noise area", "ms"]
    print_table(f"{run}: {done.result.tables[0].note.partition(';')[0]}", columns, rows)
    for line in done.result.warnings:
        warn(line)
    write_json(json, study_record(done.rows, references))
    typer.echo(
        f"the stricter reading: against {strict}, the single modality that is best on the test clips; validation "
        f"chose {chosen}"
    )
    typer.echo(f"tables: {run / 'study.md'}, study.csv, study.json\n{next_line('report', run)}")


def finetune(
    config: Start,
    overrides: Overrides = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column to learn; `label` if there is one.", show_default=False),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="Pretrained bundle or run to start from.", show_default=False),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Of two classes, the one to detect: task violence.", show_default=False),
    ] = None,
    resume: Resume = "",
    accept: Accept = None,
    deterministic: Deterministic = False,
    final: Final = False,
    json: Json = None,
) -> None:
    """Train a classifier with labels, from a pretrained encoder or from nothing."""
    from ..config.load import load_config, settings_of
    from ..runs.closing_table import print_table, write_json
    from ..runs.folder import run_folder
    from ..schema import FinetuneConfig
    from .first_checks import check_config

    name, given = start_of(config, overrides)
    for key, value in (("data.label", label), ("encoder", encoder), ("positive", positive)):
        given += [] if value is None else [f"{key}={value}"]
    given += ["task=violence"] * (positive is not None)
    given += ["train.deterministic=true"] * deterministic + ["final=true"] * final
    settings = load_config("finetune", name, given, print_choices)
    assert isinstance(settings, FinetuneConfig)
    run = run_folder(settings)
    if accept:
        from ..finetune.recipe import finetuning_clips
        from ..jobs.adapting import adapt_modalities

        settings, _ = adapt_modalities(settings, finetuning_clips(settings).index)
    again = resumes(resume, accept, run, settings_of(settings))
    check_config(settings, again)
    from ...tasks.evaluation.validation_choices import ON_VALIDATION
    from ...tasks.report.provenance import read_warnings
    from ..finetune.finetuning import finetune as run_finetuning
    from ..runs.bundles import find_bundle
    from ..runs.logbook import warn
    from ..training.device import ranks

    with summed_up(run, settings.train.log_every):
        done = run_finetuning(settings, command_line(), again)
    if ranks()[0]:
        return
    for table in done.result.tables:
        print_table(f"{run}: {table.note}", table.columns, table.rows)
    for line in done.result.warnings:
        warn(line)
    chosen = {
        str(row[0]): row[1] for table in done.result.tables if table.title == ON_VALIDATION for row in table.rows
    }
    figures: dict[str, Any] = {
        "metrics": done.metrics,
        "intervals": done.intervals,
        "chances": done.chances,
        "clips": len(done.scores.keys),
        "warnings": [*read_warnings(run), *done.result.warnings],
    }
    figures |= {"chosen": chosen} if chosen else {}
    figures |= {"final": asdict(done.calibration)} if done.calibration is not None else {}
    write_json(json, figures)
    typer.echo(f"scores: {run / 'results' / 'scores.csv'}")
    typer.echo(f"classifier: {find_bundle(run, quiet=True)}\n{model_line(run, classifier=True)}")
