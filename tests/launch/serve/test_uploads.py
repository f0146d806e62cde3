"""Request bodies, complete and in pieces, valid and invalid."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from modalgate.launch.serve import uploads
from modalgate.launch.serve.uploads import (
    Crowded,
    Receiving,
    Stalled,
    TooLarge,
    Upload,
    receive_upload,
    shown_name,
)
from modalgate.shards.errors import RequestError
from starlette.requests import ClientDisconnect

ROLES = ("video", "depth", "inertial")
BOUNDARY = b"edge"


def form(*parts: tuple[str, str, bytes], end: bool = True) -> bytes:
    body = b""
    for role, name, content in parts:
        head = f'Content-Disposition: form-data; name="{role}"; filename="{name}"\r\nContent-Type: video/mp4\r\n\r\n'
        body += b"--" + BOUNDARY + b"\r\n" + head.encode() + content + b"\r\n"
    return body + (b"--" + BOUNDARY + b"--\r\n" if end else b"")


def received(
    folder: Path,
    body: bytes,
    *,
    piece: int = 10**6,
    limit: int = 10**6,
    kind: str = "multipart/form-data; boundary=edge",
    announced: int | None = None,
    name: str | None = None,
    cut: bool = False,
) -> dict[str, Upload]:
    """The result of `receive_upload` for a body in pieces; with `cut`, the client disconnects before the last one."""
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)] or [b""]
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in pieces]
    messages[-1] = {"type": "http.disconnect"} if cut else messages[-1] | {"more_body": False}
    headers = [(b"content-type", kind.encode())]
    if announced is not None:
        headers.append((b"content-length", str(announced).encode()))

    async def receive() -> Any:
        return messages.pop(0)

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    return asyncio.run(receive_upload(request, folder, ROLES, limit, name))


CONTENT = bytes(range(256)) * 3 + b"\r\n--edg\r\n--edge-of-nothing"


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 10**6])
def test_files_arrive_complete_in_any_chunks(piece: int, tmp_path: Path) -> None:
    body = form(("video", "film.mp4", CONTENT), ("depth", "depth.mkv", b""), ("inertial", "imu.NPY", b"\x93NUMPY"))
    found = received(tmp_path, body, piece=piece)
    assert {role: upload.name for role, upload in found.items()} == {
        "video": "film.mp4",
        "depth": "depth.mkv",
        "inertial": "imu.NPY",
    }
    assert [upload.path.name for upload in found.values()] == ["video", "depth", "inertial.npy"]
    assert [upload.path.read_bytes() for upload in found.values()] == [CONTENT, b"", b"\x93NUMPY"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "C:\\films\\a.mp4", "/abs.mp4", "a\x00b", ".npy/../..", "con", ""]
)
def test_client_file_names_never_become_paths(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    received(folder, form(("video", name.replace("\x00", ""), b"x")))
    received(folder, b"x", kind="video/mp4", name=name)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"inner", "inner/video"}


def test_a_plain_body_is_the_first_role(tmp_path: Path) -> None:
    found = received(tmp_path, CONTENT, piece=100, kind="application/octet-stream", name="dir/film.mp4")
    assert found == {"video": Upload(tmp_path / "video", "film.mp4")}
    assert (tmp_path / "video").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=edge", "video/mp4"])
def test_too_large_upload_is_rejected_before_writing(kind: str, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        received(tmp_path, form(("video", "film.mp4", CONTENT)), piece=50, limit=300, kind=kind)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 300


def test_upload_with_too_large_length_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        received(tmp_path, b"x", limit=300, announced=301)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(("vidoe", "a.mp4", b"x")), "did you mean 'video'"),
        (form(("video", "a.mp4", b"x"), ("video", "b.mp4", b"y")), "'video' twice"),
        (form(("video", "a.mp4", b"x"), end=False), "before its last boundary"),
        (form(), "no file"),
        (b"this is no form", "cannot be read"),
        (b"", "before its last boundary"),
    ],
)
def test_malformed_form_is_named(body: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        received(tmp_path, body)


def test_a_form_without_a_boundary_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        received(tmp_path, form(("video", "a.mp4", b"x")), kind="multipart/form-data")


def test_disconnected_client_has_a_separate_error(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnect):
        received(tmp_path, form(("video", "film.mp4", CONTENT)), piece=100, cut=True)


def test_silent_client_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE", 0.05)

    async def never() -> Any:
        await asyncio.sleep(60)

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, never)
    with pytest.raises(Stalled):
        asyncio.run(receive_upload(request, tmp_path, ROLES, 100))


def test_names_are_printable() -> None:
    for given, shown in (
        ("film.mp4", "film.mp4"),
        ("a/b\\c.mp4", "c.mp4"),
        ("\x1b[31mred\n.mp4", "?[31mred?.mp4"),
        ("x" * 200 + ".mp4", "x" * 60 + "…" + "x" * 14 + ".mp4"),
        ("名.mp4", "名.mp4"),
    ):
        assert shown_name(given) == shown


def test_a_late_upload_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is not enough: the whole upload has a deadline."""
    monkeypatch.setattr(uploads, "TICK", 0.01)

    async def trickle() -> None:
        async def receive() -> Any:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"x", "more_body": True}

        request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
        with Receiving().admit(0.3) as progress:
            await receive_upload(request, tmp_path, ROLES, 10**6, None, progress)

    with pytest.raises(Stalled, match=r"has not arrived after 0\.3 s"):
        asyncio.run(trickle())


def test_the_slowest_of_too_many_uploads_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_ARRIVING", 3)
    receiving = Receiving()
    with receiving.admit(60) as fast, receiving.admit(60) as slow, receiving.admit(60) as other:
        fast.received, slow.received, other.received = 10**6, 10, 10**4
        with pytest.raises(Crowded), receiving.admit(60):
            raise AssertionError
        monkeypatch.setattr(uploads, "SETTLED", -1.0)
        with receiving.admit(60):
            assert [bool(one.ended) for one in (fast, slow, other)] == [False, True, False]
    assert not receiving.arriving


@pytest.mark.parametrize("head", [b"a" * 10**6 + b": b\r\n", b"a: " + b"b" * 10**6 + b"\r\n", b"a: b\r\n" * 10**5])
def test_large_headers_of_a_part_are_refused(head: bytes, tmp_path: Path) -> None:
    body = b"--" + BOUNDARY + b"\r\n" + head + b"\r\nx\r\n--" + BOUNDARY + b"--\r\n"
    with pytest.raises(RequestError, match=r"Maximum header (size|count) exceeded"):
        received(tmp_path, body, limit=10**7)
