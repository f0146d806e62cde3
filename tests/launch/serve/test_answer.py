"""Recordings sent to a real server: answered, rejected or aborted. No file remains."""

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from modalgate.launch.cli import main

from ..given.served import Served, form_of, until

NDJSON = {"Accept": "application/x-ndjson"}


def idle(server: Served) -> bool:
    return server.ask("GET", "/health").json["free"] == 1 and not server.kept()


@pytest.fixture(autouse=True)
def nothing_stays(server: Served) -> Any:
    yield
    until(lambda: idle(server))


def test_answer_equals_the_output_of_predict(
    server: Served, action_bundle: Path, hall_film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = server.predict(video=hall_film)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    capsys.readouterr()
    assert main(["predict", str(action_bundle), str(hall_film)]) == 0
    *expected, clip = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = answer.json
    assert list(found) == ["file", "duration", "classes", "modalities", "clip", "frames", "windows", "note"]
    assert clip.pop("kind") == "clip"
    assert found["clip"].keys() == clip.keys()
    assert found["clip"]["probabilities"] == pytest.approx(clip["probabilities"], abs=1e-5)
    assert len(found["windows"]) == len(expected)
    for mine, theirs in zip(found["windows"], expected, strict=True):
        assert (mine["start"], mine["end"], mine["present"]) == (theirs["start"], theirs["end"], theirs["present"])
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        assert mine["gates"] == pytest.approx(theirs["gates"], abs=1e-5)
    assert found["note"] is None
    assert len(found["frames"]) == 6


def test_streamed_lines_equal_the_answer(server: Served, hall_film: Path) -> None:
    answer = server.predict("?frames=2", headers=NDJSON, video=hall_film)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    whole = server.predict("?frames=2", video=hall_film).json
    lines = answer.lines
    assert [line for line in lines if line.pop("kind") == "window"] == whole["windows"]
    assert lines[0].items() <= whole.items()
    assert lines[-2] == {"frames": whole["frames"]}


def test_lines_are_sent_before_the_end(server: Served, hall_film: Path) -> None:
    body, kind = form_of({"video": hall_film})
    connection = server.connect()
    connection.request("POST", "/predict?hop=0.01", body, NDJSON | {"Content-Type": kind})
    response = connection.getresponse()
    assert json.loads(response.readline())["kind"] == "recording"
    assert json.loads(response.readline())["kind"] == "window"
    assert server.ask("GET", "/health").json["predicting"]
    connection.close()


def test_plain_body_is_accepted_as_a_recording(server: Served, hall_film: Path) -> None:
    answer = server.ask("POST", "/predict?name=..%2Fhall.mp4&frames=0", hall_film.read_bytes())
    assert (answer.status, answer.json["file"]) == (200, "hall.mp4")


def test_unreadable_recording_is_422(server: Served, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"this is no film\n" * 50)
    for headers in ({}, NDJSON):
        answer = server.predict(headers=headers, video=tmp_path / "text.mp4")
        line = "'text.mp4' cannot be read: it holds no media that FFmpeg can read"
        assert (answer.status, answer.json) == (422, {"error": line})


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_body_is_413_with_or_without_content_length(chunked: bool, server: Served) -> None:
    piece = bytes(100_000)
    body = (piece for _ in range(30)) if chunked else piece * 30
    answer = server.ask("POST", "/predict", body, {"Content-Type": "video/mp4"}, encode_chunked=chunked)
    line = "the recording has more than 1 MB: send a shorter one, or serve with --max-mb"
    assert (answer.status, answer.json) == (413, {"error": line})


def scoring(server: Served, film: Path) -> HTTPConnection:
    """A request that is scored: hundreds of windows, which take a while."""
    body, kind = form_of({"video": film})
    connection = server.connect()
    connection.request("POST", "/predict?hop=0.01", body, NDJSON | {"Content-Type": kind})
    until(lambda: server.ask("GET", "/health").json["predicting"])
    return connection


def test_full_queue_answers_503_with_retry_after(server: Served, hall_film: Path) -> None:
    connection = scoring(server, hall_film)
    refused = server.predict(video=hall_film)
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "try again" in refused.json["error"]
    connection.close()


def test_uploads_that_trickle_take_no_place(server: Served, hall_film: Path) -> None:
    """There is one place; before, each upload took one from its first byte on."""
    body, kind = form_of({"video": hall_film})
    slow = []
    for _ in range(5):
        connection = server.connect()
        connection.putrequest("POST", "/predict?frames=0&hop=3")
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:1000])
        slow.append(connection)
    until(lambda: len(server.kept()) == 5)
    assert server.ask("GET", "/health").json["free"] == 1
    assert server.predict("?frames=0&hop=3", video=hall_film).status == 200
    slow[0].send(body[1000:])
    assert slow[0].getresponse().status == 200
    for connection in slow:
        connection.close()


def test_client_that_disconnects_while_sending_leaves_no_files(server: Served, hall_film: Path) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "900000")
    connection.endheaders(hall_film.read_bytes()[:1000])
    until(server.kept)
    connection.close()
    until(lambda: idle(server))


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_client_that_disconnects_while_scoring_leaves_no_files(
    headers: dict[str, str], server: Served, hall_film: Path
) -> None:
    body, kind = form_of({"video": hall_film})
    connection = server.connect()
    # Thousands of windows, too many to wait for.
    connection.request("POST", "/predict?hop=0.01", body, headers | {"Content-Type": kind})
    until(lambda: server.ask("GET", "/health").json["predicting"])
    connection.close()
    until(lambda: idle(server))
    assert "abandoned by its sender" in server.said.read_text()
    assert server.predict("?hop=3&frames=0", video=hall_film).status == 200


def test_invalid_option_is_one_line(server: Served, hall_film: Path) -> None:
    for path, status, message in (
        ("?hop=0", 422, "hop: Input should be greater"),
        ("?hop=nan", 422, "hop: Input should be"),
        ("?frames=99", 422, "frames: Input should be less"),
        ("?class=figth", 400, "did you mean 'fight'"),
    ):
        answer = server.predict(path, video=hall_film)
        assert answer.status == status
        assert message in answer.json["error"]
        assert "\n" not in answer.json["error"]


def test_page_of_another_origin_is_rejected(server: Served, hall_film: Path) -> None:
    assert server.predict(headers={"Origin": "http://evil.example"}, video=hall_film).status == 403
    assert server.predict(headers={"Host": "evil.example"}, video=hall_film).status == 421
