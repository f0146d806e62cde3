"""How a run was made: command, versions, source, machine and data."""

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...shards.errors import DataError
from ..records import Result

ENVIRONMENT = "environment.json"
WARNINGS = "warnings.jsonl"


def read_warnings(run: Path) -> list[str]:
    """Returns the warnings of all trainings of a run, each once, with the number of folds that have it.

    Two warnings count as equal if they agree up to the first bracket.
    """
    files = [path for path in (run / WARNINGS, *sorted(run.glob(f"*/{WARNINGS}"))) if path.is_file()]
    trainings = len(list(run.glob("*/metrics.jsonl")))
    found: dict[str, dict[Path, str]] = {}
    for path in files:
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = str(json.loads(text)["warning"])
            except (ValueError, KeyError, TypeError):
                continue  # cut off when the process was killed
            found.setdefault(line.partition("(")[0], {})[path.parent] = line
    lines = []
    for places in found.values():
        first, line = next(iter(places.items()))
        lines.append(
            line if first == run else f"{line} (in {len(places)} of {trainings} trainings, such as {first.name})"
        )
    return lines


# Folder of a run with the model trained on all clips.
FINAL = "final"


def read_environment(run: Path) -> list[dict[str, Any]]:
    """Returns the starts of a run, oldest first. Empty if the file cannot be read: it is not essential."""
    try:
        return list(json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def run_facts(run: Path, settings: Mapping[str, Any], results: Sequence[Result]) -> list[tuple[str, str]]:
    """Returns the known facts about a run as (name, value). With folds, the first fold that recorded them is used.

    Raises `DataError` for a damaged bundle.
    """
    folds = sorted(run.glob("*/"), key=lambda fold: (fold.name == FINAL, fold))
    starts = next(filter(None, map(read_environment, (run, *folds))), [])
    began = datetime.fromtimestamp((run / "config.yaml").stat().st_mtime, UTC)
    facts = [("kind", str(settings["kind"]))] if "kind" in settings else []
    facts.append(("date", f"{began:%Y-%m-%d %H:%M} UTC"))
    if command := settings.get("command"):
        facts.append(("command", shlex.join(map(str, command)) if isinstance(command, list) else str(command)))
    last = starts[-1] if starts else {}
    versions = last.get("versions") or (results[-1].versions if results else _bundle_versions(run))
    if versions:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    if git := last.get("git"):
        dirty = git.get("dirty")
        changed = ", changes unknown" if dirty is None else ", with uncommitted changes" if dirty else ""
        facts.append(("source", f"commit {str(git.get('commit'))[:12]}{changed}"))
    if machine := last.get("machine"):
        facts.append(("machine", _machine(machine)))
    if fingerprint := last.get("fingerprint"):
        facts.append(("data", f"shards {(settings.get('data') or {}).get('shards', '')}, fingerprint {fingerprint}"))
    if len(starts) > 1:
        steps = ", ".join(str(start.get("step")) for start in starts[1:])
        facts.append(("resumed", f"at step {steps}"))
    return facts


def _machine(machine: Mapping[str, Any]) -> str:
    parts = [str(machine.get("processor")), f"{machine.get('cores')} cores", f"{machine.get('memory_gb')} GB"]
    devices = [str(device) for device in machine.get("devices") or []]
    return ", ".join([*parts, *(devices or ["no GPU"]), str(machine.get("system"))])


def _bundle_versions(run: Path) -> dict[str, str]:
    """Returns the versions recorded in an exported encoder, for runs that recorded nothing else."""
    path = run / "encoder" / "encoder.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["provenance"].get("versions", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}): rerun the export") from error
