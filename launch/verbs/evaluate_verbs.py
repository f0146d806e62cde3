"""`modalgate probe`, `compare`, `robustness`, `detect` and `report`: how good a model is."""

from pathlib import Path
from typing import Annotated

import typer

from ...shards.index.whole_file import PAGE, keep_others
from ..runs.next_step import browse
from .shared_options import Encoder, Hop, Json, LabelledShards, Model, Views, names_in, replacing


def probe(
    encoder: Encoder,
    shards: LabelledShards,
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Label column to predict.")] = "label",
    multilabel: Annotated[
        bool, typer.Option("--multilabel", help="Clips may have several classes: `fight|shouting`, or `|` for none.")
    ] = False,
    labels: Annotated[
        str, typer.Option(metavar="A,B", help="With --multilabel: columns of 0 and 1.", show_default=False)
    ] = "",
    folds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Folds of grouped cross-validation; 0 uses the column `split`. Default: that column if it "
            "exists, else 5.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[str, typer.Option(metavar="COLUMN", help="Clips of one group stay in one fold.")] = "group",
    leave_one_out: Annotated[bool, typer.Option("--leave-one-out", help="Make one fold per group.")] = False,
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", metavar="FILE", help="Official lists: train, test, train, test, ... Repeatable."),
    ] = None,
    leaky: Annotated[bool, typer.Option("--leaky", help="Allow a group in several folds (inflates scores).")] = False,
    train_split: Annotated[str, typer.Option(help="Value of `split` to fit on.")] = "train",
    test_split: Annotated[str, typer.Option(help="Value of `split` to score.")] = "test",
    views: Views = None,
    solver: Annotated[str, typer.Option(help="Solver of the linear probe: lbfgs, or sgd for large sets.")] = "lbfgs",
    curve: Annotated[
        bool, typer.Option("--curve", help="Also score with 1 to 100 % of the labels, and few-shot.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Store features here. Default: the encoder's run.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and of the untrained control.")] = 0,
    json: Json = None,
) -> None:
    """Linear probe, kNN and retrieval on frozen features.

    The same encoder without training is the control.
    """
    from ..jobs.first_checks import check_bundle, check_shards

    check_bundle(encoder)
    check_shards(shards, None if labels else label)
    from ...tasks.splits.split_plan import SplitPlan
    from ..jobs.probing import probe as run_probe
    from ..jobs.resuming import command_line
    from ..runs.progress import counted
    from .evaluation_tables import print_probed

    plan = SplitPlan(folds, leave_one_out, tuple(lists or ()), group, leaky, train_split, test_split, seed)
    with counted("probe") as progress:
        probed = run_probe(
            encoder,
            shards,
            label=label,
            labels=names_in(labels),
            multilabel=multilabel,
            plan=plan,
            views=views,
            solver=solver,
            curve=curve,
            cache=cache,
            workers=workers,
            seed=seed,
            command=" ".join(command_line()),
            progress=progress,
        )
    print_probed(encoder, shards, probed, multilabel, json)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Fine-tuning runs with the same test clips.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write an HTML page of all runs; replaces an earlier one.",
            callback=replacing("--out", PAGE),
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Test runs in pairs: differences with intervals, tests, Holm."""
    from ...tasks.records import scores_file

    for run in runs:
        scores_file(run)
    from ..jobs.resuming import command_line
    from .evaluation_tables import print_compared

    print_compared(runs, " ".join(command_line()), out, json)


def robustness(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_MODEL", help="A fine-tuning run, a classifier, or an encoder to probe.")
    ],
    shards: LabelledShards,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE", help="Value of `split` to score, or all. Default: the run's own test clips, else test."
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS", help="Only this corruption, such as blur. Repeatable."),
    ] = None,
    label: Annotated[
        str, typer.Option(metavar="COLUMN", help="Label column, unless MODEL is a fine-tuning run.")
    ] = "label",
    folds: Annotated[
        int | None,
        typer.Option(min=0, help="For an encoder: folds of the probe, as in `modalgate probe`.", show_default=False),
    ] = None,
    group: Annotated[str, typer.Option(metavar="COLUMN", help="Clips of one group stay in one fold.")] = "group",
    train_split: Annotated[str, typer.Option(help="For an encoder: value of `split` to fit the probe on.")] = "train",
    views: Views = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per batch.")] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise. Use one seed for runs to compare.")] = 0,
    json: Json = None,
) -> None:
    """Score test clips with missing, noisy or late modalities.

    Also blurred and swapped ones. Prints curves, areas and gate weights.
    """
    from ..jobs.first_checks import check_bundle, check_shards

    check_shards(shards)
    check_bundle(model, split=True)
    from functools import partial

    from ...tasks.splits.split_plan import SplitPlan
    from ..jobs.resuming import command_line
    from ..jobs.robustness import Options
    from ..jobs.robustness import robustness as measure
    from ..runs.progress import track
    from .evaluation_tables import print_robustness

    plan = SplitPlan(folds, group=group, train=train_split, seed=seed)
    options = Options(label, split, plan, tuple(axis or ()), views, batch_size, workers, seed)
    measured = measure(model, shards, options, partial(track, label="robustness"), " ".join(command_line()))
    print_robustness(model, measured, json)


def detect(
    model: Model,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Untrimmed recordings, at any depth.")],
    spans: Annotated[
        Path, typer.Option(metavar="CSV", help="Events: columns video,start,end[,label], times in seconds.")
    ],
    label: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="The class to find. Default: the positive class.", show_default=False),
    ] = None,
    hop: Hop = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Score of an alarm, chosen on other recordings. Default: the model's, or 0.5.",
            show_default=False,
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Find events in untrimmed recordings: AP, AUC, alarms, delay."""
    from ..jobs.first_checks import check_bundle, check_recordings

    check_bundle(model)
    check_recordings(folder, spans)
    from ..jobs.resuming import command_line
    from ..predict.detecting import detect as run_detection
    from ..runs.progress import counted
    from .evaluation_tables import print_detected

    with counted("detect") as progress:
        videos, result = run_detection(
            model,
            folder,
            spans,
            label=label,
            hop=hop,
            threshold=threshold,
            command=" ".join(command_line()),
            progress=progress,
        )
    print_detected(model, folder, videos, result, json)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders to show on one page.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Default: report.html in the first RUN. Replaces an earlier page.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option("--prediction", metavar="FILE", help="Also show a file from `predict --out`. Repeatable."),
    ] = None,
) -> None:
    """Write an HTML page of curves, tables, gates and clips."""
    from ...tasks.prediction.prediction_file import read_predictions
    from ...tasks.report.page import write_report

    target = out or runs[0] / "report.html"
    keep_others(target, "--out", PAGE)
    write_report(runs, target, [read_predictions(path) for path in predictions or []])
    typer.echo(f"report: {target}\n{browse(target)}")
