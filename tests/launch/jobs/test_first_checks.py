"""A wrong path, name or column is reported before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from modalgate.launch.jobs.first_checks import check_bundle, check_config
from modalgate.shards.errors import RequestError

# All wrong requests in one process: what the first imports, the second would find imported.
SCRIPT = """
import shlex, sys
from modalgate.launch.cli import main
for line in sys.stdin.read().splitlines():
    print(main(shlex.split(line)), "torch" in sys.modules or "sklearn" in sys.modules, line)
"""


def test_errors_of_every_verb_are_raised_without_torch(packed: Path, tiny_config: str, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note.txt").write_text("mine")
    verbs = [
        "pretrain nosuch",
        "pretrain surveillance-pretrain data.shards=/nonexistent",
        f"pretrain {tiny_config} tasks.clip_ordr={{}}",
        f"pretrain {tiny_config} tasks.clip_order.arguments.stream=1",
        f"pretrain {tiny_config} model.fusion=sofmax",
        f"pretrain {tiny_config} model.fusion=softmax model.fusion_arguments.balnce=1",
        f"config check {tiny_config} tasks.clip_ordr={{}}",
        f"config check {tiny_config} tasks.clip_order.arguments.stream=1",
        f"config check {tiny_config} model.fusion=sofmax",
        f"config check {tiny_config} model.fusion=softmax model.fusion_arguments.balnce=1",
        "config check study-impact12 rows.softmax.fusion=sofmax",
        f"pretrain {tiny_config} out={tmp_path} name=used",
        f"pretrain {tiny_config} out={tmp_path} name=none --resume",
        "finetune surveillance-violence data.shards=nope",
        f"finetune surveillance-violence data.shards={packed} data.label=lable",
        f"finetune surveillance-violence data.shards={packed} encoder=nope",
        "study nosuch",
        f"study study-impact12 data.shards={packed} pretrained=nope",
        f"probe nosuch {packed}",
        "probe x y",
        "export nosuch out",
        "push nosuch owner/name",
        f"embed nosuch {packed} out.npz",
        "predict nosuch nosuch",
        f"predict nosuch {packed}",
        "predict nosuch.onnx nosuch",
        "detect nosuch nosuch --spans nosuch",
        f"robustness nosuch {packed}",
        "robustness nosuch nosuch",
        "compare nosuch other",
        "report nosuch",
        "serve nosuch",
        "pack nosuch out",
        "verify nosuch",
        "inspect nosuch",
        f"demo --out {tmp_path / 'used'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input="\n".join(verbs), capture_output=True, text=True, cwd=tmp_path
    )
    # What was chosen from shards that are there is printed before the error.
    told = [line for line in done.stdout.splitlines() if line.startswith("2 ")]
    assert told == [f"2 False {line}" for line in verbs], done.stderr
    assert done.stderr.count("error: ") == len(verbs) == len(done.stderr.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["used"]


def test_valid_request_passes(corpus: Path, tiny_config: str) -> None:
    from modalgate.launch.config.load import load_config

    check_config(load_config("pretrain", tiny_config), resume=False)
    check_bundle("hf://owner/name")
    for place in (corpus / "runs" / "demo-pretrain", corpus / "runs" / "demo-pretrain" / "encoder"):
        check_bundle(place)
    with pytest.raises(RequestError, match="is not a bundle"):
        check_bundle(corpus / "runs")
