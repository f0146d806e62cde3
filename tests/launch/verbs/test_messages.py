"""The most common error messages equal messages.txt word for word."""

import shutil
from pathlib import Path

import pytest
from modalgate.launch.cli import main

MESSAGES = Path(__file__).with_name("messages.txt")
COMMANDS = """\
pakc
world corpus --preset strik
pack nowhere shards
pack . out --rate dept=3
inspect nowhere
config show demo-pretrian
config check demo-violence train.lr=2
config check demo-violence train=3
config check demo-violence train.steps=many
pretrain demo-pretrain
pretrain empty
pretrain shards train.steps=0
pretrain shards tasks.clip_ordr={}
pretrain shards name=used
pretrain shards --resume
pretrain shards --resume=atuo
pretrain shards --accept seed
finetune shards --label lable
finetune shards model.fusion=sofmax
study demo-pretrain
probe nowhere shards
predict nowhere nowhere.mp4
export nowhere out
export nowhere out --int8
compare nowhere
report nowhere
"""


def test_error_messages_equal_the_golden_file(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(packed, tmp_path / "shards")
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs" / "used").mkdir(parents=True)
    (tmp_path / "runs" / "used" / "config.yaml").write_text("kind: pretrain\n", encoding="utf-8")
    told = []
    for line in COMMANDS.splitlines():
        assert main(line.split()) == 2, line
        message = capsys.readouterr().err
        assert message.count("\n") == 1, message
        told.append(f"$ modalgate {line}\n{message}")
    text = "\n".join(told)
    new = tmp_path / "messages.txt"
    new.write_text(text, encoding="utf-8")
    assert text == MESSAGES.read_text(encoding="utf-8"), f"if the new messages are right: cp {new} {MESSAGES}"
