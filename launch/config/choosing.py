"""A config's content with what `defaults` chooses from its shards laid beneath it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...fusion.bundle.bundle_files import facts_path
from ...shards.clip_spec import ClipSpec, plain_clip_spec
from ...shards.index.folds import usual_folds
from ...shards.index.labels import LABEL, label_column
from ...shards.index.selection import with_columns, with_modalities
from ...shards.index.table import INDEX_NAME, Index, load_index
from ..runs.bundles import any_bundle
from .defaults import Choice, choose, nested
from .layers import merged


def with_choices(kind: str, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[Choice]]:
    """`content` over what is chosen for it, and the choices; nothing is chosen for a study, or without shards.

    Raises `RequestError` for a label column or an encoder that is not there.
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
    """Whether there is an index to choose from; the training itself says what is wrong where there is none."""
    places = shards if isinstance(shards, list) else [shards] if shards else []
    return bool(places) and all("://" in str(place) or (Path(str(place)) / INDEX_NAME).is_file() for place in places)


def _trained_on(kind: str, index: Index, data: Mapping[str, Any]) -> Index:
    """The clips that may train: those of the split in pretraining, those with a label in fine-tuning."""
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
    """The number of clips that train one model, and the number of models: one in pretraining and for a given split,
    else one per fold."""
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
    """How the encoder that a fine-tuning starts from sees a segment."""
    place = content.get("encoder")
    if not place:
        return None
    path = facts_path(any_bundle(Path(str(place))))
    return plain_clip_spec(json.loads(path.read_text(encoding="utf-8"))["clip"])
