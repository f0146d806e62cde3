"""The meter with a simulated clock."""

import mmap
import resource
from pathlib import Path

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the meter reports its memory")
def test_memory_is_the_resident_memory_of_the_process() -> None:
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e9

    meter = Meter()
    with mmap.mmap(-1, 200_000_000) as held:
        for _ in range(200):
            held.write(bytes(1_000_000))
        assert resident() > 0.2
        assert meter.take()["memory_gb"] == pytest.approx(resident(), rel=0.02)
    assert meter.take()["memory_gb"] == pytest.approx(resident(), rel=0.02)
