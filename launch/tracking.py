"""Where the numbers go: metrics.jsonl always, Weights & Biases beside it when it can be had."""

import json
import math
import secrets
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from ..shards.errors import RequestError

METRICS = "metrics.jsonl"


class Tracker:
    """Appends one line per `log` to RUN/metrics.jsonl and sends the same to wandb.

    `mode`: `offline` (files under RUN/wandb, for `wandb sync`), `online` or `disabled`. `identity`: wandb's run id,
    kept in the checkpoint so that a resumed job stays one run. `tensorboard`: events under RUN/tensorboard too. A
    tracker that fails never stops a training: `warn`
    gets one line and the file goes on. Only the main process makes one.
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
        _cut(run / METRICS, step)
        self._file = (run / METRICS).open("a", encoding="utf-8")
        self._wandb: Any = None if mode == "disabled" else self._start(run, mode, settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One line of `values` after `step` steps."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            try:
                self._wandb.log(dict(values), step=step)
            except Exception as error:  # whatever a tracker meets, the training goes on
                self._lose(error)
        if self._board is not None:
            self._board.log(dict(values), step=step)

    def close(self, exit_code: int = 0) -> None:
        """Ends wandb's run and closes the file."""
        self._file.close()
        if self._wandb is not None:
            try:
                self._wandb.finish(exit_code=exit_code)
            except Exception as error:  # as above: the numbers are already in the file
                self._lose(error)
        if self._board is not None:
            self._board.finish()

    def _start(self, run: Path, mode: str, settings: Mapping[str, Any]) -> Any:
        try:
            import wandb

            return wandb.init(
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
        except Exception as error:  # network, login, disk, its service: none of them is the training's business
            self._lose(error)
            return None

    def _lose(self, error: Exception) -> None:
        self._wandb = None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self.warn(f"wandb is not available ({reason}): the metrics go to {METRICS} only")


def need_tensorboard() -> None:
    """`RequestError` where the package that writes its events is not installed."""
    if find_spec("tensorboard") is None:
        raise RequestError("tensorboard=true needs a package: pip install 'modalgate[tensorboard]'")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl; a last line cut short by a kill is left out."""
    path = run / METRICS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _tensorboard(run: Path, step: int) -> Any:
    """Accelerate's tracker; what an interrupted run told it after `step` is hidden."""
    from accelerate.tracking import TensorBoardTracker

    board = TensorBoardTracker("tensorboard", run, purge_step=step + 1 if step else None)
    board.start()
    return board


def _cut(path: Path, step: int) -> None:
    """Takes out what was logged after `step`: a resumed run logs it again."""
    if not path.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read_metrics(path.parent) if line["step"] <= step]
    partial = path.with_suffix(".jsonl.partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)
