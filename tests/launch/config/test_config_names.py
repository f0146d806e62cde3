"""Tasks, fusions and arguments that a config names."""

import pytest
from modalgate.launch.config.config_names import check_names
from modalgate.launch.config.load import list_configs, partial_config
from modalgate.shards.errors import RequestError


def test_shipped_configs_name_existing_tasks_and_fusions() -> None:
    for name, _, _ in list_configs():
        check_names(partial_config(name))


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        (
            "demo-pretrain",
            "tasks.clip_ordr={}",
            "'tasks.clip_ordr': unknown pretext task 'clip_ordr': did you mean 'clip_order'?",
        ),
        ("demo-pretrain", "tasks.cross_modal.arguments={temprature: 1}", "did you mean 'temperature'?"),
        ("demo-pretrain", "model.fusion=softmx", "'model.fusion': unknown fusion 'softmx': did you mean 'softmax'?"),
        (
            "demo-pretrain",
            "model.fusion_arguments={balnce: 1}",
            "argument of fusion softmax 'balnce': did you mean 'balance'?",
        ),
        ("demo-violence", "decision=energie", "config key 'decision' 'energie': did you mean 'energy'?"),
        ("demo-violence", "decision=softmax", "unknown value for config key 'decision' 'softmax'"),
        (
            "demo-pretrain",
            "model.encoders.rgb={model: timm/resnet188}",
            "'model.encoders.rgb': unknown timm network 'resnet188'",
        ),
        (
            "demo-pretrain",
            "model.encoders.video={model: torchvision/r3d_81}",
            "unknown torchvision video network 'r3d_81': did you mean 'r3d_18'?",
        ),
        ("demo-pretrain", "model.encoders.audio={model: torchvision/r3d_18}", "cannot encode audio modality 'audio'"),
        (
            "demo-pretrain",
            "model.encoders.video={model: timm/resnet18, arguments: {wide: 3}}",
            "timm network 'resnet18' does not accept the arguments {'wide': 3}",
        ),
        ("demo-pretrain", "model.encoders.audio.pooling=grru", "unknown pooling 'grru': did you mean 'gru'?"),
        ("demo-pretrain", "model.encoders.rgb={weights: none.safetensors}", "no weights file at 'none.safetensors'"),
        (
            "demo-pretrain",
            "model.encoders.signal={model: conv1d, arguments: {width: [3]}}",
            "unknown argument of encoder conv1d 'width': did you mean 'widths'?",
        ),
        ("study-surveillance", "model.encoders.rgb={model: resnet18}", "encoder 'resnet18' cannot encode video"),
        ("study-surveillance", "rows={mine: {fusion: conct}}", "'rows.mine.fusion': unknown fusion 'conct'"),
        ("study-surveillance", "rows={mine: {fusion: tensor, arguments: {iner: 2}}}", "did you mean 'inner'?"),
    ],
)
def test_error_names_the_key_and_the_nearest_choice(config: str, setting: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_names(partial_config(config, [setting]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_sections_are_skipped() -> None:
    check_names(partial_config("study-surveillance", ["rows={mine: {}}"]))
