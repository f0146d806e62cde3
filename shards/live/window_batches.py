"""Batches of constant size with windows of many recordings, so that a result does not depend on its neighbours."""

from collections.abc import Callable
from typing import Generic, TypeVar

from ..clips.piece import Window

Tag = TypeVar("Tag")
Result = TypeVar("Result")


class Batcher(Generic[Tag, Result]):
    """Collects windows and computes them in batches of exactly `size` windows with the same modalities.

    - `compute`: takes `size` windows with equal streams and returns a result for each.
    - `size`: windows per batch. A smaller batch is padded with its last window.
    - `patience`: a window waits for at most this many others.

    Kernels are chosen by the shape of their input. Since the shape is constant, the result of a window is the same to
    the last bit, whichever windows it is computed with.
    """

    def __init__(self, compute: Callable[[list[Window]], list[Result]], size: int, patience: int = 1024) -> None:
        self.compute, self.size, self.patience = compute, size, patience
        self.held: dict[tuple[str, ...], list[tuple[Tag, Window]]] = {}
        self.since: dict[tuple[str, ...], int] = {}
        self.count = 0

    def put(self, tag: Tag, window: Window) -> list[tuple[Tag, Result]]:
        """Adds a window. Returns the results that are now complete, with their tags."""
        self.count += 1
        kind = tuple(window.streams)
        self.held.setdefault(kind, []).append((tag, window))
        self.since.setdefault(kind, self.count)
        due = [one for one in self.held if len(self.held[one]) == self.size or self._late(one)]
        return [result for one in due for result in self._run(one)]

    def rest(self) -> list[tuple[Tag, Result]]:
        """Returns the results of all windows that still wait."""
        return [result for kind in list(self.held) for result in self._run(kind)]

    def _late(self, kind: tuple[str, ...]) -> bool:
        return self.count - self.since[kind] >= self.patience

    def _run(self, kind: tuple[str, ...]) -> list[tuple[Tag, Result]]:
        held = self.held.pop(kind)
        del self.since[kind]
        windows = [window for _, window in held]
        results = self.compute(windows + windows[-1:] * (self.size - len(windows)))
        return list(zip([tag for tag, _ in held], results, strict=False))
