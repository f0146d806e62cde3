"""`modalgate compare`: does one run beat another on the same clips?"""

from pathlib import Path
from typing import Annotated

import typer

from .verbs_train import command_line
from .verbs_use import Json


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
    from dataclasses import asdict

    from ..tasks.comparison import compare as compare_runs
    from ..tasks.report import write_report
    from .tables import print_table, write_json

    duels, result = compare_runs(runs, " ".join(command_line()))
    for table in result.tables:
        print_table(f"{table.title}: {table.note}", table.columns, table.rows)
    write_json(json, {"pairs": [asdict(duel) for duel in duels], "tables": [asdict(t) for t in result.tables]})
    if out is not None:
        write_report(runs, out, [result])
        typer.echo(f"report: {out}")
