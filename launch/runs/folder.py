"""The run folder: never overwritten, and resumed only with its own settings."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ...fusion.own_classes import split_key
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.index.labels import LABEL
from ...shards.index.whole_file import remove_lost, write_whole
from ...tasks.report.provenance import ENVIRONMENT

if TYPE_CHECKING:
    from ..schema import Config

SETTINGS = "config.yaml"

# Keys that may differ on resume: the length of the training, and keys that change no weight.
_FREE = {
    "command",
    "train.steps",
    "train.epochs",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.keep",
    "train.best",
    "train.hang_minutes",
    "train.strategy",
    "data.workers",
    "probe",
    "probe.every",
    "probe.shards",
    "probe.label",
    "probe.train",
    "probe.test",
    "probe.folds",
    "probe.group",
    "probe.neighbours",
    "wandb",
    "tensorboard",
    "final",
    "jobs",
    "out",
    "name",
}


def run_folder(config: "Config") -> Path:
    """OUT/NAME."""
    return Path(config.out) / config.name


def open_run(run: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Creates `run` with `settings` in its `config.yaml`, or checks that a resumed run has the same settings.

    Raises `RequestError` for an occupied folder without `resume`, for `resume` without a run, and for changed
    settings, with their keys. Settings that change no weight, and the length of the training, may differ.
    """
    stored = run / SETTINGS
    _check_folder(run)
    if not resume:
        check_free(run)
        run.mkdir(parents=True, exist_ok=True)
    else:
        check_there(run)
        changed = differences(read_settings(stored), settings)
        if changed:
            raise _refusal(run, changed)
    _write(stored, settings)


@contextmanager
def started_run(
    run: Path, settings: Mapping[str, Any], resume: bool, worth_keeping: Callable[[], bool]
) -> Iterator[None]:
    """Opens `run` (see `open_run`). If the block raises before it has made anything `worth_keeping`, `run` is again
    as it was: a new run is removed, with all that was written there, and a resumed one has its old settings.
    """
    existed, stored = run.is_dir(), run / SETTINGS
    before = stored.read_bytes() if resume and stored.is_file() else None
    open_run(run, settings, resume)
    for folder in (run, *run.glob("*/")):
        remove_lost(folder)
    try:
        yield
    except BaseException:
        if worth_keeping():
            pass
        elif before is not None:
            write_whole(stored, before)
        else:
            _remove_new(run, existed)
        raise


@contextmanager
def started_parts(run: Path, settings: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """Opens the folder of a run whose parts (splits, rows) have their own folders in it; see `started_run`.

    Anything that a part leaves behind is worth keeping; settings, logs and the record of a start are not.
    """
    before = _left_in(run)
    with started_run(run, settings, resume, lambda: _left_in(run) != before):
        yield


def _left_in(run: Path) -> set[tuple[Path, int]]:
    """The files of a run with the time of their last change, without those that every start writes."""
    files = (path for path in run.rglob("*") if path.suffix != ".log" and path.name not in (SETTINGS, ENVIRONMENT))
    return {(path, path.stat().st_mtime_ns) for path in files if path.is_file()}


def _remove_new(run: Path, existed: bool) -> None:
    for entry in run.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not existed:
        run.rmdir()


def check_free(run: Path) -> None:
    """Raises `RequestError` if `run` exists and is not empty."""
    _check_folder(run)
    if run.is_dir() and any(run.iterdir()):
        holds = "a run" if (run / SETTINGS).exists() else "something else"
        raise RequestError(f"run folder '{run}' already holds {holds}: choose another name= or add --resume")


def check_there(run: Path) -> None:
    """Raises `RequestError` if there is no run to resume at `run`."""
    if not (run / SETTINGS).is_file():
        raise RequestError(f"no run to resume at '{run}': remove --resume, or give the out= and name= of the run")


def _check_folder(run: Path) -> None:
    if run.exists() and not run.is_dir():
        raise RequestError(f"the run folder '{run}' is a file: choose another name=")


def accept_changes(run: Path, settings: Mapping[str, Any], accepted: Sequence[str]) -> None:
    """Changes the `accepted` keys or sections of `run`, and of its unfinished folds, to their values in `settings`.

    `settings` may have the shards' `fingerprint`; without it, any is accepted with `data.shards`. The record of a
    finished fold stays as it is. Raises `RequestError`, before anything is changed, for a key that has not changed,
    for a changed key that is not accepted, and for a fine-tuning some of whose folds were finished without the
    change.
    """
    now = _flat(settings)
    names = _with_fingerprint(accepted)
    changed: set[str] = set()
    merged: dict[Path, dict[str, Any]] = {}
    title = None
    for path in (run / SETTINGS, *sorted(run.glob(f"*/{SETTINGS}"))):
        if path.is_file():
            old = _flat(read_settings(path))
            title = title or old.get("name")
            if old.get("name") != title:
                continue  # another run in this folder
            asked = _with_chosen(now, old)
            if path.parent != run and (path.parent / "encoder").is_dir():
                if settings.get("kind") == "finetune":
                    check_finished(path.parent, _nested({"fingerprint": old.get("fingerprint"), **asked}))
                continue
            changed |= {key for key in (*old, *asked) if old.get(key) != asked.get(key)} - _FREE
            kept = {key: value for key, value in old.items() if not _covers(names, key)}
            merged[path] = kept | {key: value for key, value in asked.items() if _covers(names, key)}
    for name in accepted:
        if not any(_covers(_with_fingerprint([name]), key) for key in changed):
            raise choice_error("changed setting to --accept", name, changed)
    for settled in merged.values():
        asked = _with_chosen(now, settled) | {"fingerprint": settled.get("fingerprint")}
        if others := differences(settled, asked):
            raise _refusal(run, others)
    for path, settled in merged.items():
        _write(path, _nested(settled))


def check_finished(part: Path, settings: Mapping[str, Any]) -> None:
    """Raises `RequestError` if `part` of a run is finished and was trained with other `settings`.

    The length of the training counts too: the part's scores are pooled with those of the other parts. Shards may have
    moved if their content is the same.
    """
    if not ((part / "encoder").is_dir() and (part / SETTINGS).is_file()):
        return
    old = read_settings(part / SETTINGS)
    free = set(_FREE - {"train.steps", "train.epochs"})
    if old.get("fingerprint") is not None and old["fingerprint"] == settings.get("fingerprint"):
        free.add("data.shards")
    if any((one.get("train") or {}).get("epochs") is not None for one in (old, settings)):
        free.add("train.steps")  # the epochs count
    if changed := differences(old, settings, free):
        raise RequestError(
            f"'{part.name}' of run '{part.parent}' was finished with other settings: {'; '.join(changed)}; its "
            "scores would be pooled with those of other trainings: undo the changes, or choose another name="
        )


def _with_chosen(asked: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The `asked` settings; a setting that they leave open has the value that the `run` chose from its clips."""
    left = ("data.folds", "data.leaky") if asked.get("data.folds", 0) is None else ()
    left += ("data.label",) if asked.get("data.label") == LABEL else ()
    return {**asked, **{key: run[key] for key in left if key in run}}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = _FREE) -> list[str]:
    """`key was A, is B` for every dotted key that must not change on resume: all but the `free` ones.

    A run without a known fingerprint accepts any fingerprint.
    """
    old, new = _flat(before), _flat(now)
    return [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in dict.fromkeys((*old, *new))
        if key not in free and old.get(key) != new.get(key) and (key, old.get(key)) != ("fingerprint", None)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _with_fingerprint(accepted: Sequence[str]) -> set[str]:
    """The `accepted` names; the fingerprint belongs to the shards and changes with them."""
    return {*accepted, "fingerprint"} if {"data.shards", "data"} & set(accepted) else set(accepted)


def _covers(names: set[str], key: str) -> bool:
    """Whether `key` is one of the names or in one of the sections."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = split_key(key)
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return nested


def _refusal(run: Path, changed: Sequence[str]) -> RequestError:
    return RequestError(
        f"run '{run}' was started with other settings: {'; '.join(changed)}; "
        "undo the changes, accept them with --accept KEY, or choose another name="
    )


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a run's config.yaml. Raises `DataError` if it is damaged."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise DataError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    write_whole(path, yaml.safe_dump(dict(settings), sort_keys=False).encode())
