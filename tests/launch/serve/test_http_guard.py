"""Accepted and rejected requests: by host name, origin and fetch headers of the browser."""

import asyncio
import socket
from typing import Any

import pytest
from modalgate.launch.serve.http_guard import Guard


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
    await send({"type": "http.response.body", "body": b"in"})


def ask(headers: dict[str, str], host: str = "127.0.0.1") -> tuple[int, dict[str, str]]:
    """Status and headers of the answer."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": raw}
    asyncio.run(Guard(app, host, "default-src 'none'")(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


SELF = {"Host": "127.0.0.1:8000"}


def test_own_page_programs_and_links_are_accepted() -> None:
    for headers in (
        SELF,
        {"Host": "localhost:8000"},
        {"Host": "[::1]:8000"},
        {"Host": "192.168.1.7:8000"},
        {"Host": f"{socket.gethostname()}:8000"},
        {"Host": "camera.example:8000"},
        SELF | {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Host": "LocalHost:8000", "Origin": "http://localhost:8000"},
        SELF | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ):
        assert ask(headers, host="camera.example")[0] == 200


def test_rebound_host_name_is_rejected() -> None:
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8000",
        "",
        "localhost.evil",
        "[",
        "[::1",
        "[]",
        "]",
        "a]b",
        "[v1.x]",
        "\xe9",
    ):
        assert ask({"Host": host})[0] == 421


def test_other_origin_is_rejected() -> None:
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9000",
        "http://127.0.0.1",
        "http://127.0.0.1:8000.evil.example",
        "http://127.0.0.1:8000@evil.example",
        "",
        "http://[",
        "http://[::1",
        "[",
    ):
        assert ask(SELF | {"Origin": origin})[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_embedded_request_of_another_origin_is_rejected(site: str) -> None:
    assert ask(SELF | {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_every_answer_has_the_headers_and_none_allows_other_origins(host: str) -> None:
    _, headers = ask({"Host": host})
    assert headers["content-security-policy"] == "default-src 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not [name for name in headers if name.startswith("access-control")]
