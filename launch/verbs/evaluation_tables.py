"""What `probe`, `compare`, `robustness` and `detect` print at their end."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...tasks.evaluation.run_comparison import compare
from ...tasks.metrics.detection import ScoredVideo
from ...tasks.records import Result
from ...tasks.report.page import write_report
from ...tasks.robustness.conditions import ALL, SWEEP
from ...tasks.robustness.corruptions import AXES
from ...tasks.robustness.curves import Curve
from ..runs.bundles import run_of
from ..runs.closing_table import print_table, write_json
from ..runs.logbook import warn
from ..runs.metric_log import show_result
from ..runs.next_step import comparison_line, finetune_line, next_line, run_line
from ..runs.recorded import keep_record
from ..training.device import ranks

if TYPE_CHECKING:
    from ..jobs.probing import Probed
    from ..jobs.robustness import Measured


def print_probed(encoder: Path, shards: Sequence[str], probed: "Probed", multilabel: bool, json: Path | None) -> None:
    """The probe's tables and gate weights, kept in the encoder's run; only the first process prints."""
    if ranks()[0]:
        return
    run, result = run_of(encoder), probed.result
    if run is not None:
        keep_record(result, run)
        show_result(run, result, warn)
    for table in result.tables:
        print_table(f"{table.title}, {encoder} on {' + '.join(shards)}: {table.note}", table.columns, table.rows)
    print_table("Mean gate weight", list(probed.weights), [list(probed.weights.values())])
    for line in result.warnings:
        warn(line)
    write_json(
        json,
        {
            "rows": [asdict(row) for row in probed.rows],
            "untrained": [asdict(row) for row in probed.untrained],
            "gates": probed.weights,
            "tables": [asdict(table) for table in result.tables],
            "warnings": result.warnings,
        },
    )
    line = run_line(run or encoder, encoder, classifier=False)
    typer.echo(line if multilabel else finetune_line(encoder, shards, probed.column))


def print_compared(runs: Sequence[Path], command: str, out: Path | None, json: Path | None) -> None:
    """The paired tests between `runs`; `out`: an HTML page of all runs that starts with them."""
    duels, result = compare(runs, command)
    for table in result.tables:
        gains = "corrupted" in table.columns
        columns, rows = (_GAINS, [_gain_row(row) for row in table.rows]) if gains else (table.columns, table.rows)
        print_table(f"{table.title}: {table.note}", columns, rows)
    unmeasured = [run for run in runs if not (run / "results" / SWEEP).is_file()]
    if 0 < len(unmeasured) < len(runs):
        line = next_line("robustness", unmeasured[0], "SHARDS").removeprefix("next: ")
        typer.echo(f"robustness is not compared: measure it with `{line}`")
    for line in result.warnings:
        warn(line)
    found = {"pairs": [asdict(duel) for duel in duels], "tables": [asdict(t) for t in result.tables]}
    write_json(json, found | {"warnings": result.warnings})
    if out is not None:
        write_report(runs, out, [result])
        typer.echo(f"report: {out}")
    typer.echo(comparison_line(runs, out))


def print_robustness(model: Path, measured: "Measured", json: Path | None) -> None:
    """What missing modalities cost, and a curve for each corruption."""
    missing, curves = measured.result.tables[0], measured.found.curves
    print_table(f"{missing.title}: {missing.note}", missing.columns, missing.rows)
    for title, together in (("One modality corrupted", False), ("All modalities corrupted", True)):
        rows = [_curve_row(curve) for curve in curves if (curve.modality == ALL) == together]
        if rows:
            print_table(title, _CURVES, rows)
    met = {answer: [name for name, said in measured.met.items() if said == answer] for answer in ("yes", "unknown")}
    typer.echo(
        "area: under accuracy over the levels, 95 % interval by group; single: area over that of the best modality\n"
        "alone; rho: Spearman's correlation of the corrupted modality's gate weight with the level\n"
        f"met in training: {', '.join(met['yes']) or 'none of these'}"
        + (f"; unknown: {', '.join(met['unknown'])}" if met["unknown"] else "")
    )
    for line in measured.result.warnings:
        warn(line)
    write_json(json, measured.plain())
    typer.echo(run_line(model, model, classifier=measured.classifier))


def print_detected(
    model: Path, folder: Path, videos: Sequence[ScoredVideo], result: Result, json: Path | None
) -> None:
    """The tables of a detection, kept in the model's run if `model` is a run folder."""
    is_run = (model / "config.yaml").is_file()
    if is_run:
        keep_record(result, model)
    for table in result.tables:
        print_table(f"{table.title}: {table.note}", table.columns, table.rows)
    for line in result.warnings:
        warn(line)
    write_json(
        json,
        {
            "tables": [asdict(table) for table in result.tables],
            "warnings": result.warnings,
            "videos": {
                video.name: {
                    "spans": video.spans,
                    "windows": [video.starts.tolist(), video.ends.tolist(), video.scores.tolist()],
                }
                for video in videos
            },
        },
    )
    typer.echo(next_line("report", model) if is_run else next_line("predict", model, folder / videos[0].name))


_GAINS = ("pair", "corrupted", "areas", "gain [95 %]", "Holm")


def _gain_row(row: Sequence[Any]) -> tuple[str, ...]:
    """A row of the comparison's table of areas, for 80 columns."""
    pair, name, title, first, second, gain, low, high, _, adjusted = row
    axis = next(axis.name for axis in AXES.values() if axis.title == title)
    interval = f"{gain:+.3f} [{low:+.2f}, {high:+.2f}]"
    return (pair, f"{name}: {axis}", f"{first:.2f}, {second:.2f}", interval, f"{adjusted:.2g}")


_CURVES = ("corrupted", "clean", "area [95 %]", "chance", "worst", "single", "rho")


def _curve_row(curve: Curve) -> tuple[str, ...]:
    """A curve for 80 columns."""
    lowest, level = curve.worst
    return (
        f"{curve.modality}: {curve.axis}",
        f"{curve.clean:.2f}",
        f"{curve.area:.3f} [{curve.area_low:.2f}, {curve.area_high:.2f}]",
        f"{max(curve.chance):.2f}",
        f"{lowest:.2f} at {AXES[curve.axis].label(level)}",
        f"{curve.area / curve.single_area:.2f}" if curve.single_area else "-",
        "-" if curve.correlation is None else f"{curve.correlation:+.2f}",
    )
