"""A config completed with settings chosen from its shards."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from ...fusion.bundle.bundle_files import facts_path
from ...shards.clip_spec import ClipSpec, plain_clip_spec
from ...shards.errors import RequestError
from ...shards.index.folds import usual_folds
from ...shards.index.labels import LABEL, label_column
from ...shards.index.selection import with_columns, with_modalities
from ...shards.index.table import INDEX_NAME, Index, load_index
from ..runs.bundles import any_bundle
from .defaults import Choice, choose, describe, nested
from .layers import merged


def start_of(start: str, overrides: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """The config that `start` names (None if it names shards), and the settings that change it.

    A folder that holds an index, a URL, and a list such as [a,b] are shards; `key=value` is a setting. Raises
    `RequestError` for a folder with neither shards nor a run.
    """
    settings = list(overrides or [])
    if "=" in start:
        return None, [start, *settings]
    if "://" in start or (Path(start) / INDEX_NAME).is_file() or start.startswith("["):
        return None, [f"data.shards={start}", *settings]
    if Path(start).is_dir() and not (Path(start) / "config.yaml").is_file():
        raise RequestError(f"'{start}' holds neither shards nor a run: give a folder that `modalgate pack` wrote")
    return start, settings


def print_choices(choices: Sequence[Choice]) -> None:
    """Prints a line for each setting chosen from the shards, on the first process."""
    if choices and os.environ.get("RANK", "0") == "0":
        typer.echo("chosen from the shards (give KEY=VALUE to change one):")
        for line in describe(list(choices)):
            typer.echo(f"  {line}")


def with_choices(kind: str, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[Choice]]:
    """`content` completed with settings chosen from its shards, and the choices. A study gets none.

    Raises `RequestError` for a missing label column or encoder.
    """
    data = content.get("data")
    if kind not in ("pretrain", "finetune") or not isinstance(data, Mapping) or not _packed(data.get("shards")):
        return dict(content), []
    whole, chosen = load_index(data["shards"]), list[Choice]()
    if kind == "finetune" and not data.get("label") and not data.get("labels"):
        column = label_column(whole)
        chosen = [Choice("data.label", column, "the only column of classes")] if column != LABEL else []
        content = merged(content, nested(chosen))
    index = _trained_on(kind, whole, content["data"])
    chosen += choose(kind, index, content, _start(content), *_at_a_time(kind, index, content))
    return merged(nested(chosen), content), chosen


def _packed(shards: Any) -> bool:
    """Whether there is an index to choose from; if not, the training reports what is wrong."""
    places = shards if isinstance(shards, list) else [shards] if shards else []
    return bool(places) and all("://" in str(place) or (Path(str(place)) / INDEX_NAME).is_file() for place in places)


def _trained_on(kind: str, index: Index, data: Mapping[str, Any]) -> Index:
    """The clips that may train: those of the split in pretraining, labelled ones in fine-tuning."""
    index = with_columns(index, data["where"]) if data.get("where") else index
    index = with_modalities(index, data["present"]) if data.get("present") else index
    if kind == "pretrain":
        values = str(data.get("split") or "").split("+")
        kept = [s for s in index.samples if not data.get("split") or s.labels.get("split") in values]
    else:
        columns = data.get("labels") or [data.get("label", LABEL)]
        for column in columns:
            index.column(column)
        kept = [sample for sample in index.samples if all(sample.labels.get(column) for column in columns)]
    return index.keep(sample.key for sample in kept) if kept else index


def _at_a_time(kind: str, index: Index, content: Mapping[str, Any]) -> tuple[int, int]:
    """Number of clips that train one model, and number of models.

    Pretraining trains one model on all clips, a given split one on its training clips, folds one per fold.
    """
    data: Mapping[str, Any] = content["data"]
    count = round(len(index.samples) * float(data.get("fraction", 1.0)))
    if kind == "pretrain":
        return count, 1
    if "split" in index.columns and not data.get("folds"):
        names = str(data.get("split") or "train").split("+")
        found = index.column("split")
        if any(value in names for value in found):
            return round(sum(value in names for value in found) * float(data.get("fraction", 1.0))), 1
    folds = max(int(data.get("folds") or usual_folds(len(index.samples))), 2)
    return count * (folds - 1) // folds, 1 if data.get("fold") is not None else folds


def _start(content: Mapping[str, Any]) -> ClipSpec | None:
    """The clip preparation of the encoder that a fine-tuning starts from, or None."""
    place = content.get("encoder")
    if not place:
        return None
    path = facts_path(any_bundle(Path(str(place))))
    return plain_clip_spec(json.loads(path.read_text(encoding="utf-8"))["clip"])
