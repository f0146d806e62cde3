"""`modalgate detect`: how well a classifier finds events in untrimmed recordings."""

from pathlib import Path
from typing import Annotated

import typer

from ..runs.next_step import next_line
from .train_verbs import command_line
from .use_verbs import Json


def detect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A classifier's bundle, or its run folder.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Untrimmed recordings, at any depth.")],
    spans: Annotated[
        Path, typer.Option(metavar="CSV", help="What happens when: video,start,end[,label], in seconds.")
    ],
    label: Annotated[
        str | None, typer.Option(help="The class to find; by default the positive one.", show_default=False)
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds between pieces; by default as evaluated.", show_default=False),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Score of an alarm, chosen on other recordings; by default the model's, or 0.5.",
            show_default=False,
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Frame AP and AUC, false alarms per hour and delay on untrimmed recordings."""
    from .first_checks import check_bundle, check_recordings

    check_bundle(model)
    check_recordings(folder, spans)
    from dataclasses import asdict

    from ...tasks.records import save_result
    from ..predict.detecting import detect as run_detection
    from ..runs.closing_table import print_table, write_json
    from ..runs.logbook import warn
    from ..runs.progress import counted

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
    if (model / "config.yaml").is_file():
        save_result(result, model)
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
    recording = next_line("predict", model, folder / videos[0].name)
    typer.echo(next_line("report", model) if (model / "config.yaml").is_file() else recording)
