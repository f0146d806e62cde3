"""The line a verb ends with: what to type next. It works as it is printed; words in capitals are to be filled in."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ...shards.index.labels import LABEL, label_candidates
from ...shards.index.table import Index
from ...shards.media.credentials import masked

# What a person has and nobody else knows of.
VIDEO, RECORDINGS = "VIDEO", "RECORDINGS"


def next_line(*words: object) -> str:
    """`next: modalgate WORDS`, quoted for a shell, without the credentials of URLs."""
    return f"next: modalgate {shlex.join(masked(str(word)) for word in words)}"


def browse(place: Path | str) -> str:
    """A page to look at: a file, or an address."""
    return f"next: python -m webbrowser {shlex.quote(place.resolve().as_uri() if isinstance(place, Path) else place)}"


def pretrain_line(shards: Path | str) -> str:
    """From packed shards to an encoder."""
    return next_line("pretrain", shards)


def encoder_line(encoder: Path, shards: str | Sequence[str], index: Index) -> str:
    """From an encoder to what it is worth, where the clips have labels, or else to features of them."""
    labels, folders = label_candidates(index), [shards] if isinstance(shards, str) else list(shards)
    if not labels:
        return next_line("embed", encoder, folders[0], encoder.parent / "features.npz")
    return next_line("probe", encoder, *folders, *(() if labels[0] == "label" else ("--label", labels[0])))


def finetune_line(encoder: Path | str, shards: Path | str | Sequence[str], label: str, *settings: str) -> str:
    """From an encoder to a classifier of a label column; `settings`: `key=value` besides."""
    folders = [str(shards)] if isinstance(shards, Path | str) else [str(folder) for folder in shards]
    place = folders[0] if len(folders) == 1 else f"[{','.join(folders)}]"
    named = ("--label", label) if label != LABEL else ()
    return next_line("finetune", place, *named, "--encoder", encoder, *settings)


def model_line(model: Path | str, classifier: bool) -> str:
    """From a model to what it makes of a person's own recordings."""
    if classifier:
        return next_line("predict", model, VIDEO, "--out", "windows.jsonl", "--png", "windows.png")
    return next_line("embed", model, RECORDINGS, "features.npz")


def run_line(run: Path, model: Path | str, classifier: bool = True) -> str:
    """To the report of a run, or where `run` is no run folder, to the use of the model."""
    return next_line("report", run) if (run / "config.yaml").is_file() else model_line(model, classifier)


def features_line(out: Path) -> str:
    """From a file of features to a look into it."""
    if out.suffix == ".npz":
        code = f"import numpy; print(numpy.load({str(out)!r}).files)"
    else:
        code = f"import pyarrow.parquet; print(pyarrow.parquet.read_schema({str(out)!r}))"
    return f"next: python -c {shlex.quote(code)}"


def comparison_line(runs: Sequence[Path], out: Path | None) -> str:
    """From a comparison to its page."""
    return next_line("compare", *runs, "--out", "comparison.html") if out is None else browse(out)


def prediction_line(model: Path, out: Path) -> str:
    """From the lines of recordings in `out` to a picture of them in the report of the model's run; else to more."""
    run = next((place for place in (model, model.parent) if (place / "config.yaml").is_file()), None)
    return model_line(model, classifier=True) if run is None else next_line("report", run, "--prediction", out)
