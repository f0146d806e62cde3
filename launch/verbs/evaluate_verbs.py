"""`modalgate compare` and `robustness`: does one run beat another, and what is left when its sensors fail?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..runs.next_step import comparison_line, next_line, run_line
from .train_verbs import command_line
from .use_verbs import Json

if TYPE_CHECKING:
    from ...tasks.robustness.curves import Curve


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Fine-tuning runs of the same test clips.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also a page of all runs, with this on top.")
    ] = None,
    json: Json = None,
) -> None:
    """Paired tests between runs: differences with intervals, McNemar, Holm."""
    from ...tasks.records import scores_file

    for run in runs:
        scores_file(run)
    from dataclasses import asdict

    from ...tasks.evaluation.run_comparison import compare as compare_runs
    from ...tasks.report.page import write_report
    from ...tasks.robustness.conditions import SWEEP
    from ..runs.closing_table import print_table, write_json
    from ..runs.logbook import warn

    duels, result = compare_runs(runs, " ".join(command_line()))
    for table in result.tables:
        columns, rows = (
            (_GAINS, map(_gain_row, table.rows)) if "corrupted" in table.columns else (table.columns, table.rows)
        )
        print_table(f"{table.title}: {table.note}", columns, list(rows))
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


def robustness(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run of finetune, a classifier, or an encoder to probe.")
    ],
    shards: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARDS...", help="Labelled clips that `modalgate pack` wrote, in one folder or more."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE", help="Value of `split` to score, or all; by default a run's own test clips, else test."
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS", help="Only this corruption, such as blur; may be given several times."),
    ] = None,
    label: Annotated[str, typer.Option(help="The label column, where MODEL is no run of finetune.")] = "label",
    folds: Annotated[
        int | None,
        typer.Option(min=0, help="For an encoder: folds of the probe, as `modalgate probe`.", show_default=False),
    ] = None,
    group: Annotated[str, typer.Option(help="Column whose clips stay together.")] = "group",
    train_split: Annotated[str, typer.Option(help="For an encoder: value of `split` to fit the probe on.")] = "train",
    views: Annotated[
        int | None, typer.Option(min=1, help="Uniform windows averaged per clip.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn: the same for all runs to compare.")] = 0,
    json: Json = None,
) -> None:
    """Test clips with modalities missing, noisy, blurred, late or swapped: curves, areas, gate weights."""
    from .first_checks import check_bundle, check_shards

    check_shards(shards)
    check_bundle(model, split=True)
    from functools import partial

    from ...tasks.robustness.conditions import ALL
    from ...tasks.splits.split_plan import SplitPlan
    from ..jobs.robustness import Options
    from ..jobs.robustness import robustness as measure
    from ..runs.closing_table import print_table, write_json
    from ..runs.logbook import warn
    from ..runs.progress import track

    plan = SplitPlan(folds, group=group, train=train_split, seed=seed)
    options = Options(label, split, plan, tuple(axis or ()), views, batch_size, workers, seed)
    measured = measure(model, shards, options, partial(track, label="robustness"), " ".join(command_line()))
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
        + (f"; not known of {', '.join(met['unknown'])}" if met["unknown"] else "")
    )
    for line in measured.result.warnings:
        warn(line)
    write_json(json, measured.plain())
    typer.echo(run_line(model, model, classifier=measured.classifier))


_GAINS = ("pair", "corrupted", "areas", "gain [95 %]", "Holm")


def _gain_row(row: Sequence[Any]) -> tuple[str, ...]:
    """A row of the comparison's table of areas, for 80 columns."""
    from ...tasks.robustness.corruptions import AXES

    pair, name, title, first, second, gain, low, high, _, adjusted = row
    axis = next(axis.name for axis in AXES.values() if axis.title == title)
    interval = f"{gain:+.3f} [{low:+.2f}, {high:+.2f}]"
    return (pair, f"{name}: {axis}", f"{first:.2f}, {second:.2f}", interval, f"{adjusted:.2g}")


_CURVES = ("corrupted", "clean", "area [95 %]", "chance", "worst", "single", "rho")


def _curve_row(curve: "Curve") -> tuple[str, ...]:
    """A curve for 80 columns."""
    from ...tasks.robustness.corruptions import AXES

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
