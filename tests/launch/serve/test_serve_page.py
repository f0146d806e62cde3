"""The page in a real browser: a dropped recording, its charts and frames; errors; a phone."""

import json
from pathlib import Path

import pytest

from ...browser import DESKTOP, PHONE, Browser
from ..given.served import Served

DONE = "recording?.whole === true && document.querySelector('#busy').hidden"


@pytest.fixture
def page(server: Served, browser: Browser) -> Browser:
    browser.look()
    browser.console()
    browser.open(server.address)
    browser.wait("model?.name === 'hall'")
    return browser


def test_dropped_recording_is_drawn_while_scored(page: Browser, server: Served, hall_film: Path) -> None:
    page.drop("#drop", hall_film)
    page.wait(DONE)
    expected = server.predict(video=hall_film).json
    assert page.read("windows.length") == len(expected["windows"])
    assert json.loads(page.read("JSON.stringify(windows)"))[-1]["present"] == ["rgb", "audio"]
    assert page.read("document.querySelector('#title').textContent") == "hall.mp4"
    assert json.loads(page.read("JSON.stringify(clip)")) == expected["clip"]
    assert not page.read("document.querySelector('#overall').hidden")
    # A line for each class, one for each modality's weight, and the spans in which it was there.
    assert page.read("document.querySelectorAll('#class-keys > *').length") == 3
    assert page.read("document.querySelectorAll('#gate-keys > *').length") == 3
    assert page.read("[...document.querySelectorAll('#present rect')].map(one => one.dataset.name)") == [
        "rgb",
        "audio",
    ]
    shown = page.read("[...document.querySelectorAll('#frames img')].map(one => one.src)")
    assert shown == [frame["image"] for frame in expected["frames"]]
    assert page.wait("[...document.querySelectorAll('#frames img')].every(one => one.naturalWidth > 0)")
    assert page.read("document.title") == "hall · modalgate", "a class's name is text, never a script"
    assert page.console() == []
    assert server.kept() == []


def test_hover_and_click_on_a_frame_seek_to_its_time(page: Browser, hall_film: Path) -> None:
    page.choose("#file", hall_film)
    page.wait(DONE)
    page.read("document.querySelector('#frames button').click()")
    time = page.read("frames[0].time")
    start, end = page.read("[windows[cursor].start, windows[cursor].end]")
    assert start <= time <= end
    assert page.read("document.querySelector('#when').textContent")
    assert page.read("document.querySelectorAll('svg .cursor').length") == 3


def test_unreadable_file_shows_the_server_error(page: Browser, odd_films: Path) -> None:
    page.choose("#file", odd_films / "text.mp4")
    page.wait("!document.querySelector('#failure').hidden")
    assert "'text.mp4' cannot be read: it holds no media" in page.read(
        "document.querySelector('#reason').textContent"
    )
    assert page.read("document.querySelector('#result').hidden")


def test_truncated_film_is_drawn_with_a_note(page: Browser, odd_films: Path) -> None:
    page.choose("#file", odd_films / "cut.mkv")
    page.wait("note && document.querySelector('#busy').hidden")
    assert "is cut short" in page.read("document.querySelector('#note').textContent")
    assert page.read("windows.length > 0 && !document.querySelector('#result').hidden")


def test_too_large_file_is_rejected_before_sending(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "large.mp4").write_bytes(bytes(2**20 + 1))
    page.choose("#file", tmp_path / "large.mp4")
    page.wait("!document.querySelector('#failure').hidden")
    assert "more than 1 MB" in page.read("document.querySelector('#reason').textContent")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_page_does_not_scroll_sideways(page: Browser, hall_film: Path, size: tuple[int, int]) -> None:
    page.look(size)
    page.choose("#file", hall_film)
    page.wait(DONE)
    assert page.overflow() == 0
    page.read("document.querySelector('#all').open = true")
    page.wait("document.querySelectorAll('#all tbody tr').length === windows.length")
    assert page.overflow() == 0
