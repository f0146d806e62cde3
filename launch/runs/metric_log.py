"""Logged numbers: always in metrics.jsonl, and on wandb and TensorBoard."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ...shards.index.whole_file import write_whole
from ...tasks.records import Curves, Figure, Gates, Result, Table
from ...tasks.report.provenance import WARNINGS
from .boards import Boards, tracked_identity
from .folder import read_settings

METRICS = "metrics.jsonl"


class Tracker:
    """Appends one line per `log` to RUN/metrics.jsonl and sends it to `boards`.

    Lines after `step` are deleted by the first new line: a resumed run logs them again. Only the main process makes a
    `Tracker`.
    """

    def __init__(self, run: Path, boards: Boards, step: int = 0) -> None:
        self.run, self.step = run, step
        self._boards = boards
        self._file: TextIO | None = None

    @property
    def identity(self) -> str:
        """wandb's run id, kept in the checkpoint so that a resumed job continues one run."""
        return self._boards.identity

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs `values` after `step` steps."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        file = self._begin()
        file.write(json.dumps({"step": step, **finite}) + "\n")
        file.flush()
        self._boards.log(step, values)

    def warn(self, step: int, line: str) -> None:
        """Writes a warning, after `step` steps, to RUN/warnings.jsonl."""
        self._begin()
        with (self.run / WARNINGS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "warning": line}) + "\n")

    def close(self, exit_code: int = 0) -> None:
        """Closes the file and the boards' runs, with a table of the last figures and pictures of the gates."""
        if self._file is not None:
            self._file.close()
        lines = read_metrics(self.run)
        if lines:
            self._boards.show(lines[-1]["step"], "training", task_tables(lines), gate_figures(lines))
        self._boards.close(exit_code)

    def _begin(self) -> TextIO:
        """The open file; what an earlier start logged after `step` is deleted when this one has something to log."""
        if self._file is None:
            _cut(self.run / METRICS, self.step)
            # Warnings at the end of a shorter training may no longer be true.
            _cut(self.run / WARNINGS, self.step - 1)
            self._file = (self.run / METRICS).open("a", encoding="utf-8")
        return self._file


def show_result(run: Path, result: Result, warn: Callable[[str], None]) -> None:
    """Sends an evaluation's tables and pictures to the boards named in the config.yaml of `run`."""
    settings = read_settings(run / "config.yaml")
    lines = read_metrics(run)
    step = lines[-1]["step"] + 1 if lines else 0
    mode, board = settings.get("wandb", "disabled"), settings.get("tensorboard", False)
    boards = Boards(run, mode, settings, warn, tracked_identity(run), tensorboard=board)
    boards.show(step, result.name, result.tables, result.figures)
    boards.close()


def task_tables(lines: list[dict[str, Any]]) -> list[Table]:
    """The newest means of every task: a row per task, a column per figure."""
    last = next((line for line in reversed(lines) if "loss" in line), {})
    named = [(*name.rpartition("/")[::2], value) for name, value in last.items() if "/" in name]
    named = [(task, figure, value) for task, figure, value in named if task != "gate"]
    tasks, figures = (list(dict.fromkeys(entry[place] for entry in named)) for place in (0, 1))
    found = {(task, figure): value for task, figure, value in named}
    rows: list[Any] = [[task, *(found.get((task, figure)) for figure in figures)] for task in tasks]
    return [Table("Tasks", ["task", *figures], rows, f"means after step {last['step']}")] if rows else []


def gate_figures(lines: list[dict[str, Any]]) -> list[Figure]:
    """Mean gate weights over the steps, and the newest."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name.startswith("gate/") and name not in ("gate/loss", "gate/entropy") and value is not None:
                series.setdefault(name.removeprefix("gate/"), []).append((line["step"], value))
    if not series:
        return []
    last = [points[-1][1] for points in series.values()]
    return [
        Curves("Gate weights", "step", "mean gate weight", series),
        Gates("Last gate weights", list(series), ["all"], [last]),
    ]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl, without a last line cut short by a kill."""
    return _read_lines(run / METRICS)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _cut(path: Path, step: int) -> None:
    """Deletes the lines after `step`: a resumed run logs them again."""
    if not path.exists():
        return
    kept = [json.dumps(line) + "\n" for line in _read_lines(path) if line["step"] <= step]
    write_whole(path, "".join(kept).encode())
