"""Planted against found, for every awkward recording of the benchmark script, by `pack`, `slide` and from a URL."""

import sys
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def truth() -> Any:
    """The script and the recordings it reads, from a folder that is on the path while they are imported."""
    sys.path.insert(0, str(FOLDER))
    try:
        import media_truth
    finally:
        sys.path.remove(str(FOLDER))
    return media_truth


def off(rows: list) -> list[str]:
    return [f"{row.case}, {row.way}: {row.planted}, found {row.found}" for row in rows if not row.good]


@pytest.mark.parametrize("kind", [pytest.param("timing", marks=pytest.mark.slow), "stream"])
def test_events_are_found_where_they_were_planted(truth: Any, tmp_path: Path, kind: str) -> None:
    """Gaps, joints, cuts, sparse and reordered frames; tracks, covers, sound alone and channels of opposite phase."""
    (tmp_path / "media").mkdir()
    cases = list(getattr(truth, f"{kind}_cases")(tmp_path / "media"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(truth.Quiet, directory=str(tmp_path / "media")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        rows = list(truth.timed_rows(iter(cases), tmp_path, f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
    assert len(rows) >= 40
    assert not off(rows)


def test_shapes_names_copies_and_ends_are_as_planted(truth: Any, tmp_path: Path) -> None:
    rows = list(truth.still_rows(tmp_path))
    assert len(rows) >= 7
    assert not off(rows)
