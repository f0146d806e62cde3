"""Weights & Biases and TensorBoard: scalars during training, tables and pictures at its end."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ...shards.errors import RequestError
from ...tasks.records import Figure, Table
from .closing_table import markdown_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Boards:
    """Sends numbers, tables and figures to wandb, and optionally to TensorBoard.

    `mode`: `offline` (files under RUN/wandb, for `wandb sync`), `online` or `disabled`. `identity`: wandb's run id;
    the same id continues that run. `tensorboard`: also writes events under RUN/tensorboard; events after `step` are
    hidden. A failure of wandb never stops a training: `warn` gets one line. Only the main process makes a `Boards`.
    """

    def __init__(
        self,
        run: Path,
        mode: str,
        settings: Mapping[str, Any],
        warn: Callable[[str], None],
        identity: str | None = None,
        step: int = 0,
        tensorboard: bool = False,
    ) -> None:
        self._board: Any = _tensorboard(run, step) if tensorboard else None
        self.identity = identity or secrets.token_hex(4)
        self.warn = warn
        self._wandb: Any = None if mode == "disabled" else self._start(run, mode, settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name after `step` steps."""
        self._send(step, lambda: dict(values))
        if self._board is not None:
            self._board.log(dict(values), step=step)

    def show(self, step: int, of: str, tables: Sequence[Table], figures: Sequence[Figure]) -> None:
        """Tables and figures, named `of`/TITLE; a confusion, curves and gates are pictures."""
        if self._wandb is None and self._board is None:
            return
        from ...tasks.report.charts import draw
        from ...tasks.report.style import as_pixels

        drawn = [
            (f"{of}/{figure.title}", as_pixels(drawing.canvas)) for figure in figures for drawing in draw(figure)
        ]
        if self._wandb is not None:
            self._send(step, lambda: _media(of, tables, drawn))
        if self._board is not None:
            for table in tables:
                self._board.writer.add_text(f"{of}/{table.title}", markdown_table(table), step)
            for title, pixels in drawn:
                self._board.writer.add_image(title, pixels, step, dataformats="HWC")

    def close(self, exit_code: int = 0) -> None:
        """Ends wandb's run."""
        if self._wandb is not None:
            try:
                self._wandb.finish(exit_code=exit_code)
            except Exception as error:  # the numbers are in metrics.jsonl already
                self._lose(error)
        if self._board is not None:
            self._board.finish()

    def _send(self, step: int, values: Callable[[], dict[str, Any]]) -> None:
        if self._wandb is not None:
            try:
                # A resumed online run keeps its steps and refuses earlier ones.
                self._wandb.log(values(), step=max(step, self._wandb.step))
            except Exception as error:  # no fault of a tracker stops the training
                self._lose(error)

    def _start(self, run: Path, mode: str, settings: Mapping[str, Any]) -> Any:
        try:
            import wandb

            started = wandb.init(
                project="modalgate",
                name=run.name,
                id=self.identity,
                resume="allow",
                dir=run,
                mode=cast(Literal["offline", "online"], mode),
                config=dict(settings),
                # No git, code or metadata: a remote's address and the command's arguments may carry a token.
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_meta=True,
                    init_timeout=30,
                ),
            )
        except Exception as error:  # network, login, disk or service: the training continues
            self._lose(error)
            return None
        self.identity = started.id  # the agent of a sweep has set another id
        return started

    def _lose(self, error: Exception) -> None:
        self._wandb = None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self.warn(f"wandb is not available ({reason}): the metrics go to metrics.jsonl only")


def need_tensorboard() -> None:
    """Raises `RequestError` if the tensorboard package is not installed."""
    if find_spec("tensorboard") is None:
        raise RequestError("tensorboard=true needs a package: pip install 'modalgate[tensorboard]'")


def tracked_identity(run: Path) -> str | None:
    """wandb's id of the run last tracked in the folder `run`, or None."""
    # The folder's name ends in the id only if no other run began in the same second.
    logs = list((run / "wandb").glob("*run-*-*/run-*.wandb"))
    if not logs:
        return None
    return max(logs, key=lambda path: path.parent.name.removeprefix("offline-")).stem.removeprefix("run-")


def _media(of: str, tables: Sequence[Table], drawn: "Sequence[tuple[str, NDArray[np.uint8]]]") -> dict[str, Any]:
    import wandb

    rows = {
        f"{of}/{table.title}": wandb.Table([*table.columns], table.rows, allow_mixed_types=True) for table in tables
    }
    return {**rows, **{title: wandb.Image(pixels) for title, pixels in drawn}}


def _tensorboard(run: Path, step: int) -> Any:
    """Accelerate's tracker; hides what an interrupted run logged after `step`."""
    from accelerate.tracking import TensorBoardTracker

    board = TensorBoardTracker("tensorboard", run, purge_step=step + 1 if step else None)
    board.start()
    return board
