"""Features of finished recordings on disk, until all are there to be written as one file."""

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
    """One file per finished recording in `folder`, whole or not there; a changed recording's counts for nothing."""

    def __init__(self, folder: Path, modalities: tuple[str, ...]) -> None:
        self.folder, self.modalities = folder, modalities

    def holds(self, item: Item) -> bool:
        """Whether the recording, as it is now, was embedded in full."""
        try:
            with safe_open(self._path(item), "numpy") as part:
                return json.loads((part.metadata() or {})["stamp"]) == json.loads(json.dumps(item.stamp))
        except (FileNotFoundError, SafetensorError, KeyError):
            return False

    def save(self, item: Item, found: Embedding) -> None:
        """From here on `holds` says yes."""
        arrays = {name: getattr(found, name) for name in _FIELDS}
        arrays |= {f"by_modality.{name}": values for name, values in found.by_modality.items()}
        write_whole(self._path(item), save(arrays, metadata={"stamp": json.dumps(item.stamp)}))

    def read(self, item: Item) -> Embedding:
        """What `save` was given."""
        arrays = load_file(self._path(item))
        by_modality = {
            name: arrays[f"by_modality.{name}"] for name in self.modalities if f"by_modality.{name}" in arrays
        }
        fields = {name: arrays[name] for name in _FIELDS}
        return Embedding(self.modalities, **fields, by_modality=by_modality)

    def _path(self, item: Item) -> Path:
        # A key may be longer than a file's name can be, and holds separators.
        return self.folder / f"{hashlib.sha256(item.key.encode()).hexdigest()[:32]}.safetensors"


_FIELDS = ("start", "end", "features", "weights", "present")


def parts_folder(out: Path) -> Path:
    """Where the parts of `out` lie until it is there."""
    return out.with_name(f".{out.name}.parts")


@contextmanager
def open_parts(out: Path, request: Mapping[str, Any], modalities: tuple[str, ...]) -> Iterator[FeatureParts]:
    """The parts beside `out`, made, or taken up where an earlier run of the same request was interrupted.

    Raises `RequestError` where that was another request (the difference is named), or is still going on.
    """
    folder = parts_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RequestError(f"'{out}' is being written by another process: wait for it, or stop it") from error
        path, wanted = folder / "request.json", json.loads(json.dumps(dict(request)))
        if path.is_file():
            named = difference(json.loads(path.read_text(encoding="utf-8")), wanted)
            if named:
                raise RequestError(
                    f"'{folder}' holds what an interrupted run with {named} had finished: give the same to go on, or "
                    "remove it"
                )
        else:
            write_whole(path, json.dumps(wanted).encode())
        for left in folder.glob("*.partial"):  # whoever wrote these was killed
            left.unlink()
        yield FeatureParts(folder, modalities)


def remove_parts(out: Path) -> None:
    """Deletes what is needed no more once `out` is there."""
    shutil.rmtree(parts_folder(out), ignore_errors=True)
