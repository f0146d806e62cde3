"""What `embed` and `predict` print at their end."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..predict.prediction_lines import Predicted
from ..runs.closing_table import print_rejected, print_table, write_json
from ..runs.next_step import features_line

if TYPE_CHECKING:
    from ..jobs.embedding_job import Embedded

# More classes than this do not fit in a table.
MOST_CLASSES = 4


def print_embedded(out: Path, rejected: Path, found: "Embedded", json: Path | None) -> None:
    """Shares of pieces and gate weights by modality; `rejected`: the list of unreadable recordings."""
    title = f"{found.windows} pieces of {found.recordings} recordings, {found.width} features each, in {out}"
    rows = [(name, found.present[name], found.weights[name]) for name in found.present]
    print_table(title, ("modality", "share of pieces", "mean gate weight"), rows)
    print_rejected(rejected)
    write_json(json, asdict(found))
    typer.echo(features_line(out))


def print_predicted(predicted: Sequence[Predicted], out: Path) -> None:
    """A row for each recording, and one for each alarm."""
    classes = list(predicted[0].means) if predicted else []
    shown = classes if len(classes) <= MOST_CLASSES else []
    columns = ["recording", "seconds", "pieces", *(f"mean {name}" for name in shown), "class", "dropped", "alarms"]
    rows = []
    for entry in predicted:
        scores = [entry.means.get(name) for name in shown]
        counts = [entry.decision, entry.dropped, entry.alarm_count]
        rows.append([entry.title, round(entry.seconds, 1), entry.windows, *scores, *counts])
    print_table(f"Lines in {out}", columns, rows)
    alarms = [(e.title, a.on, a.off, (a.off or a.on) - a.on, a.peak, a.peak_at) for e in predicted for a in e.alarms]
    if alarms:
        print_table("Alarms, in seconds", ("recording", "on", "off", "lasted", "peak score", "at"), alarms)
