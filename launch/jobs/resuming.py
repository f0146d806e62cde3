"""How a training command resumes a run, and what it prints when interrupted."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from ...shards.errors import RequestError, choice_error
from ...shards.media.credentials import masked
from ..config.load import settings_of
from ..runs.folder import accept_changes, run_folder
from ..schema import FinetuneConfig, PretrainConfig, StudyConfig

if TYPE_CHECKING:
    from ...shards.index.table import Index

Kind = TypeVar("Kind", PretrainConfig, FinetuneConfig, StudyConfig)


def command_line() -> list[str]:
    """The command as a user would type it again, without the credentials of URLs."""
    return ["modalgate", *(masked(argument) for argument in sys.argv[1:])]


def resuming_command() -> str:
    """The command line that resumes an interrupted run."""
    from ..training.device import ranks

    words: list[str] = []
    for before, word in pairwise(command_line()):
        # The run's own settings already hold what was accepted.
        taken = before == "--accept" or (before, word) == ("--resume", "auto")
        if not taken and word.partition("=")[0] not in ("--accept", "--resume"):
            words.append(word)
    start = f"torchrun --nproc_per_node {ranks()[1]} -m modalgate.launch.cli" if ranks()[1] > 1 else "modalgate"
    return f"{start} {shlex.join(words)} --resume"


def resumed(
    config: Kind, resume: str, accept: list[str] | None, clips: "Callable[[Kind], Index] | None" = None
) -> tuple[Kind, bool]:
    """The config, and whether its run is resumed according to `--resume` (yes, auto or empty).

    First changes the settings in `accept` in the run's folder; for that, the config is adapted to its `clips`, as the
    run's settings were. Raises `RequestError` for another value of `--resume`, and for `--accept` without it.
    """
    run = run_folder(config)
    shards: dict[str, str] = {}
    if accept and clips is not None:
        from .adapting import adapt_modalities

        index = clips(config)
        config, _ = adapt_modalities(config, index)
        shards = {"fingerprint": index.fingerprint}
    if resume not in ("", "yes", "auto"):
        raise choice_error("value of --resume", resume, ("auto",))
    again = resume == "yes" or (resume == "auto" and (run / "config.yaml").is_file())
    if accept and not resume:
        raise RequestError("--accept is for a run that is resumed: add --resume")
    if accept and again:
        from ..training.device import ranks  # imports torch, so it comes after the errors

        if ranks()[0] == 0:
            accept_changes(run, settings_of(config) | shards, accept)
    return config, again


@contextmanager
def summed_up(run: Path, log_every: int) -> Iterator[None]:
    """Prints the last means, the checkpoint and the command that resumes if the work inside is interrupted."""
    from ..training.device import ranks

    try:
        yield
    except KeyboardInterrupt:
        from ..runs.closing_table import print_table
        from ..runs.metric_log import read_metrics
        from ..training.checkpoint import latest_checkpoint

        # Every fold has its own folder; the newest is the one that was interrupted.
        found = [folder for folder in (run, *run.glob("*/")) if (folder / "checkpoints").is_dir()]
        last_run = max(found, key=lambda folder: (folder / "checkpoints").stat().st_mtime, default=None)
        if ranks()[0] == 0 and last_run is not None:
            last = next((line for line in reversed(read_metrics(last_run)) if "loss" in line), {})
            rows = [(name, value) for name, value in last.items() if name.endswith("loss") or name == "step"]
            print_table(f"{last_run}: interrupted; mean of {log_every} steps", ("figure", "value"), rows)
            typer.echo(f"checkpoint: {latest_checkpoint(last_run)}\nnext: {resuming_command()}")
        raise
