"""Records of the evaluations in a run folder: kept, and read for the model card."""

from pathlib import Path

from ...shards.errors import DataError
from ...tasks.evaluation.validation_choices import ON_VALIDATION, THRESHOLD
from ...tasks.records import Result, load_result, save_result
from .logbook import warn


def keep_record(result: Result, run: Path) -> None:
    """Writes RUN/results/NAME.json (see `save_result`); prints a line if that replaces another command's record."""
    path = run / "results" / f"{result.name}.json"
    if path.is_file():
        try:
            before = load_result(path).command
        except DataError:
            before = "a damaged file"
        if before != result.command:
            warn(f"note: this replaces '{path}', the record of: {before}")
    save_result(result, run)


def recorded_metrics(run: Path) -> dict[str, float]:
    """Figures by name: test scores of fine-tuning, and the linear probe of the fused features.

    `run`: a run folder, or the folder of one of its splits; the figures are pooled over all splits. Raises
    `DataError` for a damaged result file.
    """
    found: dict[str, float] = {}
    for name, read in (("finetune", _finetune), ("probe", _probe)):
        for folder in (run, run.parent if (run.parent / "config.yaml").is_file() else run):
            path = folder / "results" / f"{name}.json"
            if path.is_file():
                found |= read(load_result(path))
                break
    return found


def alarm_threshold(metrics: dict[str, float]) -> float | None:
    """The threshold chosen on held-out clips, or None."""
    return next((value for name, value in metrics.items() if name.startswith(THRESHOLD)), None)


def _finetune(result: Result) -> dict[str, float]:
    table = result.tables[0]
    found = {f"{row[0]} ({table.note})": float(row[1]) for row in table.rows if isinstance(row[1], int | float)}
    for chosen in result.tables[1:]:
        for row in chosen.rows if chosen.title == ON_VALIDATION else ():
            if row[0] == THRESHOLD and isinstance(row[1], int | float):
                found[f"{THRESHOLD} ({chosen.note})"] = float(row[1])
    return found


def _probe(result: Result) -> dict[str, float]:
    table = result.tables[0]
    feature, linear = table.columns.index("feature"), table.columns.index("linear")
    return {
        f"linear probe accuracy, fused features ({table.note})": float(row[linear] or 0)
        for row in table.rows
        if row[feature] == "fused"
    }
