"""Versions, git state, machine and the data's fingerprint of a run, in RUN/environment.json."""

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

from ...shards.index.whole_file import write_whole
from ...tasks.records import versions
from ...tasks.report.provenance import ENVIRONMENT, read_environment


def record_environment(run: Path, step: int, processes: int, settings: Mapping[str, Any]) -> None:
    """Adds one start of the run to RUN/environment.json: a resumed run may be on another machine.

    `settings`: the run's settings, with its `command` and the data's `fingerprint`. Environment variables and
    addresses of git remotes are not recorded: both may hold secrets. A damaged file is renamed and kept.
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
    write_whole(path, (json.dumps({"starts": [*before, start]}, indent=1) + "\n").encode())


def _unused(path: Path) -> Path:
    """`path`, or if it exists, the first free name with a number after it."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not place.exists())


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit checked out around `folder` and whether tracked files differ from it; None outside a repository."""
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
    # Without locks: a starting run must not block a commit.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
