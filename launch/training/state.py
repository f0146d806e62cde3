"""The state of a training: built, saved in a checkpoint, and restored."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from ..schema import TrainConfig
from .checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state
from .device import on_first
from .ema import WeightAverage
from .fsdp import reach_all, same_buffers, same_weights, sharded, whole
from .nonfinite import NonFiniteGuard
from .optimizer import build_optimizer, resume_optimizer, without_unused


class RunState:
    """The model, its optimiser, their place in the run, and everything else that a resumed run needs.

    `step` steps and `batches` batches of this process are done. `model` is what the loop calls; `trained` is the
    module inside it: `objective`, or with the strategy fsdp a sharded copy that is copied back at the end. `tracked`:
    the tracker's run id in `checkpoint`, if the state comes from one. `nonfinite`: counts and undoes non-finite
    steps.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: nn.Module,
        config: TrainConfig,
        run: Path,
        parameter_groups: Sequence[dict[str, Any]] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.accelerator, self.objective, self.config = accelerator, objective, config
        self.step, self.batches = 0, 0
        self.fsdp = config.strategy == "fsdp" and accelerator.num_processes > 1
        kept: dict[str, Any] = {}
        weights: dict[str, Tensor] = {}
        if checkpoint is not None:
            self.step, weights, kept = load_checkpoint(checkpoint)
            self.batches = kept.get("batches", self.step * config.accumulate)
            objective.load_state_dict(weights)
        self.trained = sharded(objective, accelerator.device) if self.fsdp else objective.to(accelerator.device)
        if self.fsdp and parameter_groups:
            parameter_groups = same_weights(parameter_groups, objective, self.trained)
        self.parameters = [weight for weight in self.trained.parameters() if weight.requires_grad]
        self.optimizer = build_optimizer(self.trained, config, parameter_groups)
        self.average = WeightAverage(self.trained, config.average) if config.average else None
        if kept:
            moments = without_unused(kept["optimizer"], self.optimizer, self.trained, weights)
            resume_optimizer(self.optimizer, moments)
            if self.average is not None:
                self.average.load_state_dict(kept["average"])
        # A sharded model exchanges its own gradients: Accelerate adds the precision, but no DDP.
        self.model = accelerator.prepare_model(self.trained, device_placement=False, evaluation_mode=self.fsdp)
        self._scaler: Any = accelerator.scaler
        if kept and self._scaler is not None:
            self._scaler.load_state_dict(kept["scaler"])
        self.nonfinite = NonFiniteGuard(run, self.trained, config.nonfinite_limit, accelerator.process_index)
        self.tracked: str | None = kept.get("wandb")
        self._random: list[dict[str, Any] | None] = kept.get("random", [])
        # The generators after `step` steps; `_inside` a step, and inside its update, which leaves nothing whole.
        self._random_at: tuple[int, dict[str, Any]] | None = None
        self._inside, self._updating = False, False

    def restore_random(self) -> None:
        """Sets this process's generators to their state in the checkpoint."""
        mine = self._random[self.accelerator.process_index :][:1]
        if mine and mine[0] is not None:  # unknown of a process that was killed
            set_random_state(mine[0])

    def begin_step(self) -> None:
        """Copies what a skipped step, or one cut short, has to restore."""
        self.nonfinite.remember()
        self._random_at = self.step, random_state()
        self._inside = True

    def undo_step(self) -> None:
        """Restores buffers, a teacher's weights and generators to their state before a step that is cut short."""
        if self._inside and self._random_at is not None:
            self.nonfinite.restore()
            set_random_state(self._random_at[1])
        self._inside = False

    def exchanging(self, last: bool) -> AbstractContextManager[None]:
        """Context of one batch of a step: DDP exchanges gradients once per step, with the last batch."""
        return nullcontext() if last or self.fsdp else self.accelerator.no_sync(self.model)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of one batch of a step."""
        if self.fsdp:
            loss = loss + reach_all(self.trained)
        loss = loss / self.config.accumulate
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def clip(self, most: float) -> Tensor:
        """Scales the gradients to a norm of at most `most` over all processes; returns the norm before."""
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        return whole(torch.nn.utils.clip_grad_norm_(self.parameters, most))

    def overflowed(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether the step's loss, or the `norm` of its gradients, is not finite.

        In fp16 only the loss counts: its gradients overflow now and then by design, and the scaler skips those steps.
        """
        return ~torch.isfinite(loss if self._scaler is not None else loss + norm)

    def update(self, skip: bool, loss: Tensor, keys: Sequence[str]) -> None:
        """Ends a step: the optimiser moves the weights, or the step of these `keys` is undone and listed (`skip`)."""
        self._updating = True
        if skip:
            self.nonfinite.record(self.step, float(loss) / self.config.accumulate, keys)
        else:
            self.nonfinite.in_a_row = 0
        if self._scaler is not None:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        elif not skip:
            self.optimizer.step()
        if self.average is not None and (self._scaler is not None or not skip):
            self.average.update(self.step)
        self.optimizer.zero_grad()
        self.step += 1
        self.batches += self.config.accumulate
        if self.accelerator.num_processes > 1:
            self._random_at = self.step, random_state()
        self._inside = self._updating = False

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Inside the block, the objective is what will be exported: with averaged weights, if there are any."""
        with self.average.in_place() if self.average is not None else nullcontext():
            self._hand_over()
            yield
        if self.fsdp:
            self.objective.cpu()  # frees memory for its sharded copy
        self.model.train()

    def finish(self) -> None:
        """Gives the objective its final weights; all processes call it."""
        if self.average is not None:
            self.average.put_in_place()
        self._hand_over()

    def _hand_over(self) -> None:
        """Copies the weights and buffers of the sharded copy into the objective."""
        if self.fsdp:
            same_buffers(self.trained)
            self.objective.load_state_dict(whole(self.trained.state_dict()))
            self.objective.to(self.accelerator.device)

    def save(self, run: Path, settings: Mapping[str, Any], tracked: str | None, score: float | None) -> None:
        """Writes a checkpoint of this step; all processes call it and the first one writes."""
        random = gather_object([random_state()])
        if self.fsdp:
            same_buffers(self.trained)
        kept = self._kept(random) | {"wandb": tracked, "config": settings}
        weights = whole(self.trained.state_dict())

        def write() -> None:
            save_checkpoint(run, self.step, weights, kept, self.config.keep, score)

        on_first(self.accelerator, write)

    def keep_random(self) -> bytes:
        """The generators of this process after its finished steps, for `rescue` in the first process.

        Safe from another thread: they belong to the last finished step, or, of a process that is updating its
        weights, to the step that it is in.
        """
        began, now = self._random_at, random_state()
        file = io.BytesIO()
        torch.save({} if began is None else {began[0]: began[1], began[0] + 1: now}, file)
        return file.getvalue()

    def rescue(
        self,
        run: Path,
        settings: Mapping[str, Any],
        tracked: str | None,
        score: float | None,
        others: Mapping[int, bytes],
    ) -> bool:
        """Undoes an unfinished step and writes a checkpoint without the other processes; false if that cannot be.

        It cannot be inside an update of the weights, nor with shares of the weights in other processes. `others`:
        what their `keep_random` returned, by rank. Generators of a missing one start from the seed on resume.
        """
        self.undo_step()
        if self._updating or self.fsdp:
            return False
        random: list[dict[str, Any] | None] = [random_state()]
        for rank in range(1, self.accelerator.num_processes):
            drawn = torch.load(io.BytesIO(others[rank]), weights_only=True) if others.get(rank) else {}
            random.append(drawn.get(self.step))
        kept = self._kept(random) | {"wandb": tracked, "config": settings}
        save_checkpoint(run, self.step, self.trained.state_dict(), kept, self.config.keep, score)
        return True

    def _kept(self, random: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
        """What a checkpoint holds beside the weights and the settings."""
        return {
            "optimizer": whole(self.optimizer.state_dict()),
            "average": None if self.average is None else whole(self.average.state_dict()),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "random": random,
            "batches": self.batches,
        }

    def close(self) -> None:
        """Removes from the objective what Accelerate wrapped around it."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
