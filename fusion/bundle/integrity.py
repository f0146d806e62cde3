"""Sizes and digests, which detect a damaged or changed bundle."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...shards.errors import DataError


def seal(facts: dict[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """The facts with the sizes and sha256 of the files `names` in `folder`, and with a sha256 of the facts."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": _file_sha256(folder / name)} for name in names}
    sealed = {key: value for key, value in facts.items() if key != "sha256"} | {"files": files}
    return sealed | {"sha256": _facts_sha256(sealed)}


def check_facts(facts: dict[str, Any], path: Path) -> None:
    """Raises `DataError` if the facts read from `path` have changed since `seal`."""
    if facts.get("sha256") != _facts_sha256({key: value for key, value in facts.items() if key != "sha256"}):
        raise DataError(
            f"'{path}' was changed after its export (its sha256 does not match its content): export the run again"
        )


def check_files(facts: dict[str, Any], folder: Path) -> None:
    """Raises `DataError` for the first file that is missing, or whose size or content has changed since `seal`."""
    for name, entry in facts["files"].items():
        path = folder / name
        if Path(name).name != name:
            raise DataError(f"bundle '{folder}' names the file '{name}', which is outside it: do not use this bundle")
        if not path.is_file():
            raise DataError(f"'{path}' is missing: copy the whole folder, or export the run again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DataError(
                f"'{path}' has {size} bytes, not {entry['bytes']}: copy it again, or export the run again"
            )
        if _file_sha256(path) != entry["sha256"]:
            raise DataError(
                f"the content of '{path}' has changed since its export (its sha256 differs): copy it again, or "
                "export the run again"
            )


def _facts_sha256(facts: dict[str, Any]) -> str:
    # Does not depend on indentation or on the order of keys.
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
