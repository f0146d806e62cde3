"""Planted against found, for every awkward recording of the benchmark script, by `pack`, `slide` and from a URL."""

import importlib.util
import sys
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "media_truth.py"


@pytest.fixture(scope="module")
def truth() -> ModuleType:
    known = importlib.util.spec_from_file_location("media_truth", SCRIPT)
    assert known is not None
    assert known.loader is not None
    module = importlib.util.module_from_spec(known)
    # Dataclasses look their module up.
    sys.modules["media_truth"] = module
    known.loader.exec_module(module)
    return module


def off(rows: list) -> list[str]:
    return [f"{row.case}, {row.way}: {row.planted}, found {row.found}" for row in rows if not row.good]


@pytest.mark.parametrize("kind", ["timing", "stream"])
def test_events_are_found_where_they_were_planted(truth: ModuleType, tmp_path: Path, kind: str) -> None:
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


def test_shapes_names_copies_and_ends_are_as_planted(truth: ModuleType, tmp_path: Path) -> None:
    rows = list(truth.still_rows(tmp_path))
    assert len(rows) >= 7
    assert not off(rows)
