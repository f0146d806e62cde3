"""The run folder: never overwritten, and resumed only with the settings it was started with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..shards.errors import DataError, RequestError

# What may differ on resume: how long to train, and what no weight hangs on.
_FREE = {
    "command",
    "train.steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.keep",
    "train.best",
    "data.workers",
    "wandb",
    "out",
    "name",
}


def open_run(run: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Creates `run` with `settings` in its `config.yaml`, or checks that a resumed run has the same.

    Raises `RequestError` for an occupied folder without `resume`, for `resume` where there is no run, and, naming
    the keys, for settings that differ in more than the length of the training and what it has no part in.
    """
    stored = run / "config.yaml"
    if run.exists() and not run.is_dir():
        raise RequestError(f"the run folder '{run}' is a file: choose another name=")
    if not resume:
        if run.is_dir() and any(run.iterdir()):
            holds = "a run" if stored.exists() else "something else"
            raise RequestError(f"run folder '{run}' already holds {holds}: choose another name= or add --resume")
        run.mkdir(parents=True, exist_ok=True)
    elif not stored.is_file():
        raise RequestError(f"no run to resume at '{run}': leave out --resume, or give the out= and name= it had")
    else:
        try:
            before = yaml.safe_load(stored.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise DataError(f"'{stored}' is damaged: {' '.join(str(error).split())}") from error
        changed = differences(before or {}, settings)
        if changed:
            raise RequestError(
                f"run '{run}' was started with other settings: {'; '.join(changed)}; "
                "set them back, or choose another name="
            )
    partial = stored.with_suffix(".yaml.partial")
    partial.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    partial.replace(stored)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key was A, is B` for every dotted key that resuming may not change."""
    old, new = _flat(before), _flat(now)
    return [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in dict.fromkeys((*old, *new))
        if key not in _FREE and old.get(key) != new.get(key)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
