"""`modalgate probe`, `predict` and `report`: what one does with a trained encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.next_step import browse, finetune_line, prediction_line, run_line
from .train_verbs import command_line

if TYPE_CHECKING:
    from ..predict.prediction_lines import Predicted

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def probe(
    encoder: Annotated[
        Path, typer.Argument(metavar="ENCODER", help="A bundle, a run folder that holds one, or hf://OWNER/NAME.")
    ],
    shards: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARDS...", help="Labelled clips that `modalgate pack` wrote, in one folder or more."
        ),
    ],
    label: Annotated[str, typer.Option(help="The label column to read from the features.")] = "label",
    multilabel: Annotated[
        bool, typer.Option("--multilabel", help="A clip may have several classes: `fight|shouting`, or `|` for none.")
    ] = False,
    labels: Annotated[
        str, typer.Option(metavar="A,B", help="With --multilabel, columns of 0 and 1.", show_default=False)
    ] = "",
    folds: Annotated[
        int | None,
        typer.Option(
            min=0, help="Grouped cross-validation; 0: the column `split`; by default that, or 5.", show_default=False
        ),
    ] = None,
    group: Annotated[str, typer.Option(help="Column whose clips stay on one side of a fold.")] = "group",
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="A fold for every value of the group column.")
    ] = False,
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", metavar="FILE", help="Official lists: train, test, train, test, ..."),
    ] = None,
    leaky: Annotated[
        bool, typer.Option("--leaky", help="Let folds split a group: scores come out too good.")
    ] = False,
    train_split: Annotated[str, typer.Option(help="Value of `split` to fit on.")] = "train",
    test_split: Annotated[str, typer.Option(help="Value of `split` to score on.")] = "test",
    views: Annotated[
        int | None, typer.Option(min=1, help="Uniform windows averaged per clip.", show_default=False)
    ] = None,
    solver: Annotated[str, typer.Option(help="Of the linear probe: lbfgs, or sgd for large sets.")] = "lbfgs",
    curve: Annotated[bool, typer.Option("--curve", help="Also with 1 to 100 % of the labels, and few-shot.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep features here; by default in the encoder's run.", show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and the untrained control.")] = 0,
    json: Json = None,
) -> None:
    """Linear probe, kNN and retrieval on frozen features, beside the same encoder untrained."""
    from .first_checks import check_bundle, check_shards

    check_bundle(encoder)
    check_shards(shards, None if labels else label)
    from dataclasses import asdict

    from ...tasks.records import save_result
    from ...tasks.splits.split_plan import SplitPlan
    from ..jobs.probing import probe as run_probe
    from ..runs.bundles import run_of
    from ..runs.closing_table import print_table, write_json
    from ..runs.logbook import warn
    from ..runs.metric_log import show_result
    from ..runs.progress import counted
    from ..training.device import ranks

    plan = SplitPlan(folds, leave_one_out, tuple(lists or ()), group, leaky, train_split, test_split, seed)
    with counted("probe") as progress:
        probed = run_probe(
            encoder,
            shards,
            label=label,
            labels=[name.strip() for name in labels.split(",") if name.strip()],
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
    if ranks()[0]:
        return  # one process speaks for all
    if (run := run_of(encoder)) is not None:
        save_result(probed.result, run)
        show_result(run, probed.result, warn)
    for table in probed.result.tables:
        print_table(f"{table.title}, {encoder} on {' + '.join(shards)}: {table.note}", table.columns, table.rows)
    print_table("Mean gate weight", list(probed.weights), [list(probed.weights.values())])
    for line in probed.result.warnings:
        warn(line)
    write_json(
        json,
        {
            "rows": [asdict(row) for row in probed.rows],
            "untrained": [asdict(row) for row in probed.untrained],
            "gates": probed.weights,
            "tables": [asdict(table) for table in probed.result.tables],
            "warnings": probed.result.warnings,
        },
    )
    line = run_line(run or encoder, encoder, classifier=False)
    typer.echo(line if multilabel else finetune_line(encoder, shards, probed.column))


def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A classifier's bundle or run folder, or an exported .onnx file."),
    ],
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A media file, a folder of them, shards, a webcam's number, or a URL."),
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="MODALITY=FILE", help="Another stream of the recording, such as depth=FILE."),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=HZ", help="Of frame folders, arrays and signals, such as video=30."),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds between pieces; by default as evaluated.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the JSON lines here, and print a table at the end."),
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw scores and gate weights over time.")] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the film with scores, gates and alarms drawn on.")
    ] = None,
    alarm: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Raise alarms for it; by default for the positive class.")
    ] = None,
    on: Annotated[
        float | None, typer.Option(help="Score that raises one; by default as validation chose, or 0.5.")
    ] = None,
    off: Annotated[float | None, typer.Option(help="Score below which it ends; by default 0.8 of --on.")] = None,
    smooth: Annotated[float, typer.Option(min=0.0, help="Seconds the score is averaged over for alarms.")] = 2.0,
    smoothing: Annotated[str, typer.Option(help="mean, or exponential with --smooth as its time constant.")] = "mean",
    min_on: Annotated[float, typer.Option(min=0.0, help="Seconds a score must stay high for an alarm.")] = 0.0,
    min_off: Annotated[float, typer.Option(min=0.0, help="Seconds it must stay low for its end.")] = 0.0,
    max_lag: Annotated[float, typer.Option(min=0.1, help="Of a stream: windows later than this are dropped.")] = 5.0,
    retries: Annotated[int, typer.Option(min=0, help="Of a stream: attempts in a row to connect again.")] = 5,
    timeout: Annotated[float, typer.Option(min=0.1, help="Of a stream: seconds without data to wait.")] = 10.0,
    json: Json = None,
) -> None:
    """Class scores, gate weights and alarms of a recording or a live stream, one JSON line per piece."""
    from ...shards.errors import choice_error
    from .first_checks import check_scorer, check_source

    check_source(source)
    check_scorer(model)
    from ...shards.live.live_source import Patience
    from ..predict.predicting import parse_beside, predict_source
    from ..predict.prediction_request import AlarmRequest, PredictRequest
    from ..runs.closing_table import write_json
    from .data_verbs import parse_rates

    if smoothing not in ("mean", "exponential"):
        raise choice_error("smoothing", smoothing, ("mean", "exponential"))
    request = PredictRequest(
        parse_beside(beside or []),
        parse_rates(rate or []),
        hop,
        out,
        png,
        video,
        AlarmRequest(alarm, on, off, smooth, smoothing, min_on, min_off),
        Patience(max_lag, retries, timeout),
    )
    predicted: list[Predicted] = []
    try:
        # What came before a fault or an interruption stays in the list.
        predicted.extend(predict_source(model, source, request))
    finally:
        if predicted:
            if out is not None:
                _print_predicted(predicted, out)
            write_json(json, {"recordings": [entry.figures() for entry in predicted]})
    if out is not None:
        typer.echo(prediction_line(model, out))


def _print_predicted(predicted: "list[Predicted]", out: Path) -> None:
    from ..runs.closing_table import print_table

    classes = list(predicted[0].means) if predicted else []
    shown = classes if len(classes) <= 4 else []
    columns = ["recording", "seconds", "pieces", *(f"mean {name}" for name in shown), "class", "dropped", "alarms"]
    rows = []
    for entry in predicted:
        scores = [entry.means.get(name) for name in shown]
        told = [entry.decision, entry.dropped, entry.alarm_count]
        rows.append([entry.title, round(entry.seconds, 1), entry.windows, *scores, *told])
    print_table(f"Lines in {out}", columns, rows)
    alarms = [(e.title, a.on, a.off, (a.off or a.on) - a.on, a.peak, a.peak_at) for e in predicted for a in e.alarms]
    if alarms:
        print_table("Alarms, in seconds", ("recording", "on", "off", "lasted", "peak score", "at"), alarms)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders to show on one page.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="By default RUN/report.html of the first.")] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option("--prediction", metavar="FILE", help="Also what `predict --out` wrote, over time; many times."),
    ] = None,
) -> None:
    """Write a self-contained HTML page of curves, tables, gates and example clips."""
    from ...tasks.prediction.prediction_file import read_predictions
    from ...tasks.report.page import write_report

    target = out or runs[0] / "report.html"
    write_report(runs, target, [read_predictions(path) for path in predictions or []])
    typer.echo(f"report: {target}\n{browse(target)}")
