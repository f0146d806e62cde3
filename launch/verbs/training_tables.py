"""What `pretrain`, `study` and `finetune` print at their end; only the first process prints."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from ...shards.index.table import load_index
from ...tasks.evaluation.validation_choices import ON_VALIDATION
from ...tasks.fusion_study.study_summary import Comparison, study_record
from ...tasks.report.provenance import read_warnings
from ..finetune.finetuning import Finetuned
from ..jobs.study_job import Studied
from ..runs.bundles import find_bundle
from ..runs.closing_table import print_table, write_json
from ..runs.logbook import warn
from ..runs.next_step import encoder_line, finetune_line, next_line, run_line
from ..schema import PretrainConfig, StudyConfig
from ..training.device import ranks


def print_pretrained(run: Path, settings: PretrainConfig, last: dict[str, Any], json: Path | None) -> None:
    """The `last` means of a pretraining, its encoders and the next command."""
    if ranks()[0]:
        return
    rows = [
        (name, value, last.get(f"{name.removesuffix('accuracy')}chance") if name.endswith("/accuracy") else None)
        for name, value in last.items()
        if name not in ("loss", "learning_rate", "gradient_norm") and not name.endswith("/chance")
    ]
    print_table(f"{run}: mean of the last {settings.train.log_every} steps", ("figure", "value", "chance"), rows)
    write_json(json, last | {"warnings": read_warnings(run)})
    data = settings.data
    if "splits" in last:
        same = (f"data.folds={data.folds or 0}", f"data.group={data.group}", f"seed={settings.seed}")
        same += ("data.leave_one_out=true",) * data.leave_one_out + ("data.leaky=true",) * data.leaky
        same += (f"data.lists=[{','.join(data.lists)}]",) if data.lists else ()
        typer.echo(f"encoders: {run}/*/encoder\n{finetune_line(run, data.shards, data.label, *same)}")
        return
    line = encoder_line(run / "encoder", data.shards, load_index(data.shards))
    typer.echo(f"encoder: {run / 'encoder'}\n{line}")


def print_study(run: Path, settings: StudyConfig, done: Studied, json: Path | None) -> None:
    """A row for each fusion and single modality, with the two references."""
    references = done.references
    rows = [
        (
            row.name,
            f"{row.value.value:.3f} [{row.value.low:.3f}, {row.value.high:.3f}]",
            f"{references.chance:.3f}",
            *_compared(row.against_test_best),
            *_compared(row.against_validation_best),
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
        f"the stricter comparison is with {strict}, the single modality that is best on the test clips; validation "
        f"chose {chosen}"
    )
    typer.echo(f"tables: {run / 'study.md'}, study.csv, study.json\n{next_line('report', run)}")


def _compared(found: Comparison | None) -> tuple[str, str]:
    return ("-", "-") if found is None else (f"{found.difference.value:+.3f}", f"{found.adjusted:.2g}")


def print_finetuned(run: Path, done: Finetuned, json: Path | None) -> None:
    """The test scores of a fine-tuning, its classifier and the next command."""
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
    typer.echo(f"classifier: {find_bundle(run, quiet=True)}\n{run_line(run, run)}")
