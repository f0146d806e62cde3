"""Speed of the loop, share of its time spent waiting for data, and memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import torch


class Meter:
    """Counts between two logs; `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._began, self._waited, self._clips = clock(), 0.0, 0
        self._process = psutil.Process()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of the block as waiting for data."""
        asked = self.clock()
        yield
        self._waited += self.clock() - asked

    def add(self, clips: int) -> None:
        """Counts clips trained on, over all processes."""
        self._clips += clips

    def take(self) -> dict[str, float]:
        """Clips per second, share of time waited, and memory in GB since the last call (GPU peak, or resident)."""
        seconds = max(self.clock() - self._began, 1e-9)
        figures = {"clips_per_second": self._clips / seconds, "data_wait": self._waited / seconds}
        if torch.cuda.is_available():
            held = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
        else:
            held = self._process.memory_info().rss
        self._began, self._waited, self._clips = self.clock(), 0.0, 0
        return {**figures, "memory_gb": held / 1e9}
