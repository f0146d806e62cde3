"""The meter with a simulated clock."""

import mmap

import pytest
import torch
from modalgate.launch.runs.meter import Meter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_cover_the_time_since_the_last_reading() -> None:
    clock = Clock()
    meter = Meter(clock)
    for clips, waited in ((30, 1.0), (50, 2.0)):
        with meter.waiting():
            clock.now += waited
        meter.add(clips)
        clock.now += 4.0 - waited
        figures = meter.take()
        assert figures["clips_per_second"] == pytest.approx(clips / 4)
        assert figures["data_wait"] == pytest.approx(waited / 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it tells of the GPU's memory")
def test_memory_is_that_of_the_process() -> None:
    meter = Meter()
    page = bytes(1_000_000)
    before = meter.take()["memory_gb"]
    # Separate pages: a tensor could reuse memory that earlier tests freed.
    with mmap.mmap(-1, 200_000_000) as held:
        for _ in range(200):
            held.write(page)
        assert meter.take()["memory_gb"] - before == pytest.approx(0.2, abs=0.05)
