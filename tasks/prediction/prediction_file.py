"""The output of `modalgate predict --out` as report figures."""

import json
from pathlib import Path

import numpy as np

from ...shards.errors import DataError, RequestError
from ..records import Result, Timeline, new_result
from ..report.style import thin


def read_predictions(path: Path) -> Result:
    """Returns one timeline per recording in a file of JSON lines.

    Neighbouring windows of long recordings are averaged.

    Lines without class scores, such as alarms, and lines of whole recordings are skipped.

    Raises `RequestError` if the file is missing or has no windows. Raises `DataError` with the line number if it is
    damaged.
    """
    if not path.is_file():
        raise RequestError(f"no prediction file at '{path}': give one written by `modalgate predict --out`")
    found: dict[str, list[tuple[float, dict[str, float], dict[str, float]]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
            if "probabilities" in entry and entry.get("kind") != "clip":
                name, centre = entry.get("file", path.stem), (float(entry["start"]) + float(entry["end"])) / 2
                found.setdefault(str(name), []).append((centre, dict(entry["probabilities"]), dict(entry["gates"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"'{path}' is damaged in line {number}: {error!r}") from error
    if not found:
        raise RequestError(f"'{path}' has no windows: give a file written by `modalgate predict --out`")
    timelines = [_timeline(name, windows) for name, windows in found.items()]
    return new_result("predict", f"Over time: {path.name}", "", [], list(timelines))


def _timeline(title: str, windows: list[tuple[float, dict[str, float], dict[str, float]]]) -> Timeline:
    times, scores, gates = zip(*windows, strict=True)

    def series(rows: tuple[dict[str, float], ...]) -> dict[str, list[float]]:
        return {name: thin(np.array([row.get(name, np.nan) for row in rows], float)).tolist() for name in rows[0]}

    return Timeline(title, thin(np.array(times, float)).tolist(), series(scores), series(gates))
