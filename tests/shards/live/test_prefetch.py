"""Items read ahead in a thread: all of them in order, and every error reaches the reader."""

import threading
from collections.abc import Iterator

import pytest
from modalgate.shards.live.prefetch import Ahead


class Items:
    """Counts to `count`. Reading fails at the end, or closing does, if asked."""

    def __init__(self, count: int, fails: bool = False, close_fails: bool = False) -> None:
        self.numbers, self.fails, self.close_fails, self.closed = iter(range(count)), fails, close_fails, False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        number = next(self.numbers, None)
        if number is not None:
            return number
        if self.fails:
            raise ValueError("it cannot be read")
        raise StopIteration

    def close(self) -> None:
        self.closed = True
        if self.close_fails:
            raise OSError("it cannot be closed")


def taken(ahead: Ahead[int], found: list[int], most: int = 3) -> None:
    while items := ahead.take(most):
        found += items


def within(seconds: float, ahead: Ahead[int]) -> tuple[list[int], BaseException | None]:
    """What a reader gets, and its error. Fails if it is still waiting after some seconds."""
    found: list[int] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            with ahead:
                taken(ahead, found)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the reader hangs"
    return found, errors[0] if errors else None


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_all_items_in_order(depth: int) -> None:
    items = Items(20)
    assert within(120, Ahead(items, depth)) == (list(range(20)), None)
    assert items.closed


@pytest.mark.parametrize(
    ("fails", "close_fails", "said"),
    [(True, False, "it cannot be read"), (False, True, "it cannot be closed"), (True, True, "it cannot be read")],
)
def test_an_error_comes_after_the_items_before_it(fails: bool, close_fails: bool, said: str) -> None:
    """An error of closing must not leave the reader waiting."""
    found, error = within(120, Ahead(Items(7, fails, close_fails), 4))
    assert found == list(range(7))
    assert str(error) == said


def test_a_reader_that_leaves_ends_the_thread() -> None:
    items = Items(1000)
    with Ahead(items, 4) as ahead:
        assert ahead.take(2, whole=True) == [0, 1]
    ahead.thread.join(120)
    assert not ahead.thread.is_alive()
    assert items.closed
