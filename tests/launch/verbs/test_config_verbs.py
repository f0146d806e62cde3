"""What `config check` finds before a training."""

from pathlib import Path

import pytest
from modalgate.launch.cli import main
from modalgate.launch.verbs.config_verbs import check_run
from modalgate.shards.errors import RequestError

FINETUNE = "kind: finetune\ntask: action\nmodel: {width: 8}\ndata: {folds: 2, segments: 1, size: 32, frames: 8}\n"
STUDY = "kind: study\nmodel: {width: 8}\ndata: {folds: 2, segments: 1, size: 32, frames: 8}\nrows: [concat]\n"


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        ("pretrain", "tasks.cross_modal.arguments={pairs: [[rgb, radar]]}", "radar"),
        ("pretrain", "tasks.synchrony.arguments={nonsense: 1}", "unknown argument of task synchrony 'nonsense'"),
        ("pretrain", "data.modalities=[depth]", "depth"),
        ("pretrain", "train.accumulate=2", "train.accumulate 2 splits the batch"),
        ("pretrain", "model.encoders.video.stack=3", "stack"),
        ("pretrain", "probe.label=lable", "unknown label column 'lable': did you mean 'label'?"),
        ("pretrain", "data.split=nowhere", "nowhere"),
        ("finetune", "data.label=lable", "unknown label column 'lable': did you mean 'label'?"),
        ("finetune", "task=violence", "config key 'positive' is missing"),
        ("finetune", "patience=3", "set evaluate_every too"),
        ("finetune", "data.fold=7", "no fold 7"),
        ("finetune", "encoder=nowhere", "nowhere"),
        ("study", "data.modalities=[rgb]", "needs two or more modalities"),
        ("study", "rows.rgb.fusion=concat", "has the name of a modality"),
        ("study", "metric=auc", "metric auc needs"),
    ],
)
def test_what_a_run_would_refuse_is_found_before_it(
    kind: str, setting: str, message: str, tmp_path: Path, tiny_config: str, packed: Path
) -> None:
    path = tmp_path / f"{kind}.yaml"
    path.write_text(FINETUNE if kind == "finetune" else STUDY, encoding="utf-8")
    config = tiny_config if kind == "pretrain" else str(path)
    before = set(tmp_path.rglob("*"))
    assert check_run(config, [f"data.shards={packed}", f"out={tmp_path}"]) == ""
    with pytest.raises(RequestError) as caught:
        check_run(config, [f"data.shards={packed}", f"out={tmp_path}", setting])
    assert message in str(caught.value)
    assert set(tmp_path.rglob("*")) == before


def test_no_tasks_are_an_error_and_the_clips_are_not_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check", "demo-pretrain", "tasks={}"]) == 2
    assert "config key 'tasks' is empty" in capsys.readouterr().err
    path = tmp_path / "bare.yaml"
    path.write_text("kind: pretrain\ndata: {shards: nowhere}\n", encoding="utf-8")
    assert main(["config", "check", str(path)]) == 0
    assert "not checked against clips: no shard folder at 'nowhere'" in capsys.readouterr().err
    # What `config show` prints is still a valid config.
    assert main(["config", "show", str(path)]) == 0
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["config", "check", str(path)]) == 0
