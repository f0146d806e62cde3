"""`modalgate probe`, `predict` and `report`: what one does with a trained encoder."""

from pathlib import Path
from typing import Annotated

import typer

from .verbs_train import command_line

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def probe(
    encoder: Annotated[Path, typer.Argument(metavar="ENCODER", help="A bundle, or a run folder that holds one.")],
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="Labelled clips that `modalgate pack` wrote.")],
    label: Annotated[str, typer.Option(help="The label column to read from the features.")] = "label",
    multilabel: Annotated[
        bool, typer.Option("--multilabel", help="A clip may have several classes: `fight|shouting`, or `|` for none.")
    ] = False,
    labels: Annotated[
        str, typer.Option(metavar="A,B", help="With --multilabel, columns of 0 and 1.", show_default=False)
    ] = "",
    folds: Annotated[int, typer.Option(min=0, help="Grouped cross-validation; 0 uses the column `split`.")] = 0,
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
    from dataclasses import asdict

    from ..tasks.results import save_result
    from ..tasks.split_plan import SplitPlan
    from .device import ranks
    from .probing import probe as run_probe
    from .progress import counted
    from .tables import print_table, write_json

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
    if (encoder / "config.yaml").is_file():
        save_result(probed.result, encoder)
    for table in probed.result.tables:
        print_table(f"{table.title}, {encoder} on {shards}: {table.note}", table.columns, table.rows)
    print_table("Mean gate weight", list(probed.weights), [list(probed.weights.values())])
    write_json(
        json,
        {
            "rows": [asdict(row) for row in probed.rows],
            "untrained": [asdict(row) for row in probed.untrained],
            "gates": probed.weights,
            "tables": [asdict(table) for table in probed.result.tables],
        },
    )


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A classifier's bundle, or its run folder.")],
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A media file; its sound is used where it has any.")],
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="MODALITY=FILE", help="Another stream of the recording, such as depth=FILE."),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds between windows; half a window by default.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the windows here as JSON lines, not on standard output."),
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw scores and gate weights over time.")] = None,
) -> None:
    """Class scores and gate weights over a recording, one JSON line per window."""
    from .predicting import predict_file

    predict_file(model, video, beside or [], hop, out, png)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders to show on one page.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="By default RUN/report.html of the first.")] = None,
) -> None:
    """Write a self-contained HTML page of curves, tables and gates."""
    from ..tasks.report import write_report

    target = out or runs[0] / "report.html"
    write_report(runs, target)
    typer.echo(f"report: {target}")
