"""Windows of many recordings in batches of one size, so that a result does not hang on its neighbours."""

from collections.abc import Callable
from typing import Generic, TypeVar

from ..clips.piece import Window

Tag = TypeVar("Tag")
Result = TypeVar("Result")


class Batcher(Generic[Tag, Result]):
    """Collects windows until `size` of them have the same modalities, then lets `compute` do them all at once.

    `compute` takes `size` windows of equal streams and returns a result for each. A batch that does not fill is
    filled up with its last window. A kernel is chosen by the shape of what it gets: as that is always the same, a
    window's result is the same to the last bit whichever windows it is computed with, and at whatever moment. A
    window waits for at most `patience` others.
    """

    def __init__(self, compute: Callable[[list[Window]], list[Result]], size: int, patience: int = 1024) -> None:
        self.compute, self.size, self.patience = compute, size, patience
        self.held: dict[tuple[str, ...], list[tuple[Tag, Window]]] = {}
        self.since: dict[tuple[str, ...], int] = {}
        self.count = 0

    def put(self, tag: Tag, window: Window) -> list[tuple[Tag, Result]]:
        """Takes one more window; the results that are now there, with the tags they were put in with."""
        self.count += 1
        kind = tuple(window.streams)
        self.held.setdefault(kind, []).append((tag, window))
        self.since.setdefault(kind, self.count)
        due = [one for one in self.held if len(self.held[one]) == self.size or self._late(one)]
        return [result for one in due for result in self._run(one)]

    def rest(self) -> list[tuple[Tag, Result]]:
        """The results of all that still waits."""
        return [result for kind in list(self.held) for result in self._run(kind)]

    def _late(self, kind: tuple[str, ...]) -> bool:
        return self.count - self.since[kind] >= self.patience

    def _run(self, kind: tuple[str, ...]) -> list[tuple[Tag, Result]]:
        held = self.held.pop(kind)
        del self.since[kind]
        windows = [window for _, window in held]
        results = self.compute(windows + windows[-1:] * (self.size - len(windows)))
        return list(zip([tag for tag, _ in held], results, strict=False))
