"""`predict`: windows of a recording as JSON lines, and their picture."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from av.error import FFmpegError

from ..fusion.bundle import Bundle, load_bundle
from ..shards.errors import DataError, RequestError, choice_error
from ..tasks.predict import Prediction, predict
from ..tasks.results import Result, Timeline, new_result
from .probing import find_bundle


def predict_file(
    model: Path, video: Path, beside: list[str], hop: float | None, out: Path | None, png: Path | None
) -> list[Prediction]:
    """Scores one recording; JSON lines to `out` or standard output as they come, the timeline to `png`.

    Raises `RequestError` for an absent file, a modality the model does not have or an `out` that cannot be written,
    `DataError` for a recording that cannot be read, after the lines of what comes before the fault.
    """
    bundle = load_bundle(find_bundle(model))
    files = recording_files(bundle, video, beside)
    windows = []
    with _lines_to(out) as file:
        try:
            for window in predict(bundle, files, hop):
                file.write(json.dumps(asdict(window)) + "\n")
                file.flush()
                windows.append(window)
        except BrokenPipeError:
            raise
        except (FFmpegError, OSError, ValueError, EOFError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
            end = f", beyond {windows[-1].end:g} s," if windows else ""
            raise DataError(f"'{video}'{end} cannot be read: {reason}") from error
    if png is not None:
        from ..tasks.figures import draw_timeline

        draw_timeline(timeline(video.name, windows), png)
    return windows


@contextmanager
def _lines_to(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        file = out.open("w", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write '{out}' ({error.strerror}): give another --out") from error
    with file:
        yield file


def recording_files(bundle: Bundle, video: Path, beside: list[str]) -> dict[str, Path]:
    """The recording's files by what they hold."""
    files = {"video": video}
    for text in beside:
        name, separator, path = text.partition("=")
        if not separator:
            raise RequestError(f"--with '{text}': give MODALITY=FILE, such as depth=depth.mkv")
        if name not in bundle.backbone.modalities:
            raise choice_error("modality of this model", name, bundle.backbone.modalities)
        files[name] = Path(path)
    for path in files.values():
        if not path.is_file():
            raise RequestError(f"no file at '{path}'")
    return files


def timeline(title: str, windows: list[Prediction]) -> Timeline:
    """Scores by class and gate weights by modality, at the windows' centres."""
    classes, modalities = list(windows[0].probabilities), list(windows[0].gates)
    return Timeline(
        title,
        [(window.start + window.end) / 2 for window in windows],
        {name: [window.probabilities[name] for window in windows] for name in classes},
        {name: [window.gates[name] for window in windows] for name in modalities},
    )


def prediction_result(title: str, windows: list[Prediction], command: str) -> Result:
    """The timeline as a record for the report."""
    return new_result("predict", f"Prediction of {title}", command, [], [timeline(title, windows)])
