"""Features of finished recordings on disk, until all are written into one file."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from ...fusion.bundle.embedder import Embedding
from ...shards.errors import RequestError
from ...shards.index.whole_file import write_whole
from ...shards.live.inputs import Item
from ...shards.media.pack_settings import difference


class FeatureParts:
    """One file per finished recording in `folder`, written atomically.

    A recording that has changed since then counts as not finished.
    """

    def __init__(self, folder: Path, modalities: tuple[str, ...]) -> None:
        self.folder, self.modalities = folder, modalities

    def holds(self, item: Item) -> bool:
        """Returns whether the current version of the recording is stored."""
        try:
            with safe_open(self._path(item), "numpy") as part:
                return json.loads((part.metadata() or {})["stamp"]) == json.loads(json.dumps(item.stamp))
        except (FileNotFoundError, SafetensorError, KeyError):
            return False

    def save(self, item: Item, found: Embedding) -> None:
        """Stores the features of a recording."""
        arrays = {name: getattr(found, name) for name in _FIELDS}
        arrays |= {f"by_modality.{name}": values for name, values in found.by_modality.items()}
        write_whole(self._path(item), save(arrays, metadata={"stamp": json.dumps(item.stamp)}))

    def read(self, item: Item) -> Embedding:
        """Returns the stored features of a recording."""
        arrays = load_file(self._path(item))
        by_modality = {
            name: arrays[f"by_modality.{name}"] for name in self.modalities if f"by_modality.{name}" in arrays
        }
        fields = {name: arrays[name] for name in _FIELDS}
        return Embedding(self.modalities, **fields, by_modality=by_modality)

    def _path(self, item: Item) -> Path:
        # Keys contain separators and may be too long for a file name.
        return self.folder / f"{hashlib.sha256(item.key.encode()).hexdigest()[:32]}.safetensors"


_FIELDS = ("start", "end", "features", "weights", "present")


def parts_folder(out: Path) -> Path:
    """Returns the folder that holds the parts of `out` until it is written."""
    return out.with_name(f".{out.name}.parts")


@contextmanager
def open_parts(out: Path, request: Mapping[str, Any], modalities: tuple[str, ...]) -> Iterator[FeatureParts]:
    """Opens the parts next to `out`. Resumes an interrupted run with the same request.

    Raises `RequestError` if the interrupted run had another request, and if another process is writing.
    """
    folder = parts_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RequestError(f"another process is writing '{out}': wait for it, or stop it") from error
        path, wanted = folder / "request.json", json.loads(json.dumps(dict(request)))
        if path.is_file():
            named = difference(json.loads(path.read_text(encoding="utf-8")), wanted)
            if named:
                raise RequestError(
                    f"'{folder}' holds the results of an interrupted run with {named}: rerun with the same settings "
                    "to resume, or delete the folder"
                )
        else:
            write_whole(path, json.dumps(wanted).encode())
        for left in folder.glob("*.partial"):  # left by a process that was killed
            left.unlink()
        yield FeatureParts(folder, modalities)


def remove_parts(out: Path) -> None:
    """Deletes the parts once `out` is written."""
    shutil.rmtree(parts_folder(out), ignore_errors=True)
