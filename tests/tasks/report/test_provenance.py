"""Facts about a run: command, versions, source, machine and data. Unknown facts are omitted."""

import json
from pathlib import Path

import pytest
from modalgate.shards.errors import DataError
from modalgate.tasks.records import new_result
from modalgate.tasks.report.provenance import read_environment, run_facts

START = {
    "step": 0,
    "versions": {"torch": "9.9"},
    "git": {"commit": "abcdef0123456789", "dirty": False},
    "machine": {"processor": "chip", "cores": 4, "memory_gb": 16.0, "devices": ["GPU A"], "system": "Linux 6"},
    "fingerprint": "f00d",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("kind: finetune\n")
    return tmp_path


def test_all_known_facts_are_listed(run: Path) -> None:
    settings = {"kind": "finetune", "command": ["modalgate", "finetune", "a b"], "data": {"shards": "corpus"}}
    # With cross-validation, the folds hold the record, before the final model.
    for name in ("final", "group-hall"):
        (run / name).mkdir()
    (run / "group-hall" / "environment.json").write_text(json.dumps({"starts": [START]}))
    (run / "final" / "environment.json").write_text(json.dumps({"starts": [START | {"git": None}]}))
    facts = dict(run_facts(run, settings, []))
    assert facts["kind"] == "finetune"
    assert facts["command"] == "modalgate finetune 'a b'"
    assert facts["versions"] == "torch 9.9"
    assert facts["source"] == "commit abcdef012345"
    assert facts["machine"] == "chip, 4 cores, 16.0 GB, GPU A, Linux 6"
    assert facts["data"] == "shards corpus, fingerprint f00d"
    assert "resumed" not in facts


def test_older_runs_list_fewer_facts(run: Path) -> None:
    assert [name for name, _ in run_facts(run, {}, [])] == ["date"]
    result = new_result("probe", "Probe", "", [], [])
    assert dict(run_facts(run, {}, [result]))["versions"].startswith("python 3.")
    (run / "encoder").mkdir()
    (run / "encoder" / "encoder.json").write_text('{"provenance": {"versions": {"torch": "7.7"}}}')
    assert dict(run_facts(run, {}, []))["versions"] == "torch 7.7"
    (run / "encoder" / "encoder.json").write_text("[")
    with pytest.raises(DataError, match=r"encoder\.json"):
        run_facts(run, {}, [])
    (run / "environment.json").write_text("{")
    assert read_environment(run) == []
