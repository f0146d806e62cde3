"""What a run ran on: versions, git state, machine and the data's fingerprint, in RUN/environment.json."""

import itertools
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from ...tasks.records import versions
from ...tasks.report.provenance import ENVIRONMENT, read_environment


def record_environment(run: Path, step: int, processes: int, settings: Mapping[str, Any]) -> None:
    """Adds one start of the run to RUN/environment.json: a resumed run may be on another machine.

    `settings`: of the run, with its `command` and the data's `fingerprint`. Nothing of the process's environment
    variables is kept, and no address of a git remote: both may hold secrets. A damaged file is put aside.
    """
    path = run / ENVIRONMENT
    before = read_environment(run)
    if path.is_file() and not before:
        path.replace(_unused(path.with_suffix(".json.damaged")))
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": list(settings.get("command") or ()),
        "processes": processes,
        "versions": versions(),
        "git": git_state(Path.cwd()),
        "machine": machine(),
        "fingerprint": settings.get("fingerprint"),
    }
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps({"starts": [*before, start]}, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _unused(path: Path) -> Path:
    """`path`, or where something has that name already, the first free one with a number after it."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not place.exists())


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit checked out around `folder` and whether tracked files differ from it; none outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def machine() -> dict[str, Any]:
    """Cores this process may use, memory, and the names of processor and GPUs."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(folder: Path, *arguments: str) -> str | None:
    # Without locks: a run that starts must not get in the way of a commit being made.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
