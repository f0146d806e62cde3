"""A bounded queue: one at a time, in order, also when requests are aborted."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from modalgate.launch.serve.waiting_queue import Full, Stopping, Turns


def test_requests_are_served_one_at_a_time_in_order() -> None:
    async def everybody() -> list[str]:
        turns, log = Turns(waiting=5), []

        async def one(name: str) -> None:
            async with turns.turn():
                log.append(f"{name} in")
                await turns.call(lambda: None)
                log.append(f"{name} out")

        await asyncio.gather(*(one(name) for name in "abc"))
        turns.close()
        return log

    assert asyncio.run(everybody()) == ["a in", "a out", "b in", "b out", "c in", "c out"]


def test_full_queue_admits_nobody_until_a_place_is_free() -> None:
    turns = Turns(waiting=1)
    with turns.admit():
        with turns.admit(), pytest.raises(Full), turns.admit():
            raise AssertionError
        with turns.admit():
            assert turns.admitted == 2
    assert turns.admitted == 0
    turns.close()


def test_all_steps_run_in_one_worker_thread() -> None:
    async def run() -> set[int]:
        turns = Turns(0)
        steps = (threading.get_ident() for _ in range(5))
        found = {ident async for ident in turns.iterate(steps)}
        turns.close()
        return found

    (ident,) = asyncio.run(run())
    assert ident != threading.get_ident()


def test_abandoned_generator_is_closed_after_its_current_step() -> None:
    log: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def steps() -> Iterator[int]:
        try:
            yield 0
            log.append("step begins")
            entered.set()
            leave.wait(240)
            log.append("step ends")
            yield 1
        finally:
            log.append("closed")

    async def run() -> None:
        turns = Turns(0)

        async def consume() -> None:
            async with turns.turn(), aclosing(turns.iterate(steps())) as found:
                async for _ in found:
                    pass

        task = asyncio.create_task(consume())
        await asyncio.to_thread(entered.wait, 240)
        task.cancel()
        await asyncio.sleep(0)
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        log.append("next")
        async with turns.turn():
            assert await turns.call(lambda: 7) == 7
        turns.close()

    asyncio.run(run())
    assert log == ["step begins", "step ends", "closed", "next"]


def test_errors_of_a_step_reach_the_caller() -> None:
    def steps() -> Iterator[int]:
        yield 1
        raise ValueError("its tail is damaged")

    with pytest.raises(ValueError, match="tail"):
        asyncio.run(collect(steps(), []))


def test_stopped_queue_starts_no_step() -> None:
    turns, found = Turns(0), []

    def steps() -> Iterator[int]:
        for number in range(9):
            turns.stopping = number == 2
            yield number

    async def enter() -> None:
        async with turns.turn():
            raise AssertionError

    with pytest.raises(Stopping):
        asyncio.run(collect(steps(), found, turns))
    assert found == [0, 1, 2]
    with pytest.raises(Stopping):
        asyncio.run(enter())


async def collect(steps: Iterator[int], found: list[int], turns: Turns | None = None) -> None:
    async for number in (turns or Turns(0)).iterate(steps):
        found.append(number)  # noqa: PERF401 - those before a fault are kept
