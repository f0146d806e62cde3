"""Configs: layers, types, and one-line errors that name the key."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from modalgate.launch.config.load import (
    check_config,
    config_kind,
    list_configs,
    load_config,
    settings_of,
    show_config,
)
from modalgate.launch.schema import KINDS, FinetuneConfig, PretrainConfig, TaskConfig
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, Sample, Shard, Statistics, save_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import MODALITIES, modality, plain_modality

MINIMAL = "kind: pretrain\ndata: {shards: packed}\n"


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return str(path)


def written(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_arguments_override_file_and_file_overrides_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "mine", MINIMAL + "train: {steps: 7, clip_norm: 3}\ntasks: {clip_order: {weight: 2}}\n")
    config = load_config("pretrain", path, ["train.steps=9", "data.modalities=[rgb]", "train.learning_rate=1e-4"])
    assert isinstance(config, PretrainConfig)
    assert config.data.shards == "packed"
    assert (config.train.steps, config.train.clip_norm, config.train.learning_rate) == (9, 3.0, 1e-4)
    assert config.train.weight_decay == 0.05
    assert config.data.modalities == ["rgb"]
    assert config.tasks == {"clip_order": TaskConfig(2.0, arguments={})}


def test_diff_adds_changes_and_removes_entries_of_the_base(tmp_path: Path) -> None:
    base = written(
        tmp_path,
        "base",
        MINIMAL + "tasks: {clip_order: {}, correspondence: {weight: 3}}\n"
        "model: {encoders: {video: {model: timm/a, arguments: {depths: [1, 2], dims: [3, 4]}}}}\n",
    )
    diff = written(
        tmp_path,
        "diff",
        f"base: {base}\nname: other\ntasks: {{clip_order: null, cross_modal: {{}}}}\n"
        "model: {encoders: {video: {arguments: {dims: [5, 6]}}}}\n",
    )
    config = load_config("pretrain", diff)
    assert isinstance(config, PretrainConfig)
    assert sorted(config.tasks) == ["correspondence", "cross_modal"]
    assert config.tasks["correspondence"].weight == 3
    assert config.model.encoders["video"].arguments == {"depths": [1, 2], "dims": [5, 6]}
    replaced = load_config("pretrain", diff, ["model.encoders.video.arguments={out: 1}"])
    assert isinstance(replaced, PretrainConfig)
    assert replaced.model.encoders["video"].arguments == {"out": 1}


def test_base_of_another_kind_provides_its_common_sections(tmp_path: Path) -> None:
    base = written(tmp_path, "base", MINIMAL + "name: first\ntasks: {clip_order: {}}\nmodel: {width: 32}\n")
    tuned = load_config("finetune", written(tmp_path, "tuned", f"kind: finetune\nbase: {base}\n"))
    assert isinstance(tuned, FinetuneConfig)
    assert tuned.data.shards == "packed"
    assert tuned.model is not None
    assert tuned.model.width == 32
    assert tuned.name == "finetune"


def test_steps_and_epochs_exclude_each_other_and_upper_layer_wins(tmp_path: Path) -> None:
    base = written(tmp_path, "base", MINIMAL + "train: {steps: 7}\n")
    diff = written(tmp_path, "diff", f"base: {base}\ntrain: {{epochs: 3}}\n")
    assert load_config("pretrain", diff).train.epochs == 3  # pyright: ignore[reportAttributeAccessIssue]
    back = load_config("pretrain", diff, ["train.steps=5"])
    assert (back.train.steps, back.train.epochs) == (5, None)  # pyright: ignore[reportAttributeAccessIssue]
    assert load_config("pretrain", base, ["train.epochs=null"]).train.steps == 7  # pyright: ignore
    with pytest.raises(RequestError, match=r"train\.epochs and train\.steps are both given: keep one of them"):
        load_config("pretrain", base, ["train.steps=5", "train.epochs=2"])
    both = written(tmp_path, "both", MINIMAL + "train: {steps: 7, epochs: 1}\n")
    with pytest.raises(RequestError, match=r"gives both train\.steps and train\.epochs: keep one of them"):
        load_config("pretrain", both)
    # The record of a run has the number of steps of its epochs.
    config = load_config("pretrain", diff)
    written(tmp_path, "config", yaml.safe_dump(settings_of(config, ["pretrain"])))
    assert load_config("pretrain", str(tmp_path)) == config


def test_config_based_on_itself_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(f"kind: pretrain\nbase: {path}\n", encoding="utf-8")
    with pytest.raises(RequestError, match="based on itself"):
        check_config(str(path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=3", "unknown config key 'train.step': did you mean 'train.steps'?"),
        ("batch_size=3", "unknown config key 'batch_size': did you mean 'data.batch_size'?"),
        ("sede=3", "unknown config key 'sede': did you mean 'seed'?"),
        ("tasks.clip_order.wieght=1", "'tasks.clip_order.wieght': did you mean 'tasks.clip_order.weight'?"),
        ("model.encoders.video.pool=gru", "did you mean 'model.encoders.video.pooling'?"),
        ("train.steps=2.5", "config key 'train.steps': 2.5 is not a whole number"),
        ("data.size=wide", "config key 'data.size': 'wide' is not a whole number or null"),
        ("data.modalities=rgb", "config key 'data.modalities': 'rgb' is not a list such as [a,b]"),
        ("data.modalities=[rbg]", "unknown modality 'rbg': did you mean 'rgb'?"),
        ("train.warmup=1.5", "config key 'train.warmup' is 1.5: it must be between 0 and 1"),
        ("train.clip_norm=nan", "config key 'train.clip_norm' is nan: it must be at least 0"),
        ("tasks.clip_order.weight=-1", "config key 'tasks.clip_order.weight' is -1.0: it must be at least 0"),
        ("wandb=onlin", "unknown value for config key 'wandb' 'onlin': did you mean 'online'?"),
        ("tsaks.clip_order.weight=1", "unknown config key 'tsaks': did you mean 'tasks'?"),
        ("task=violence", "config key 'task' is for `modalgate finetune`, not for this config"),
        ("positive=fight", "config key 'positive' is for `modalgate finetune` or `modalgate study`"),
        ("seed", "'seed' is not a setting: write key=value"),
        ("seed=}{", "config key 'seed': the value '}{' is not valid YAML"),
        ("seed=${nowhere}", "config key 'seed': Interpolation key 'nowhere' not found"),
    ],
)
def test_error_names_the_key_in_one_line(minimal: str, override: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_config("pretrain", minimal, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: pretrain\nsteps: 3\n", "unknown config key 'steps': did you mean 'train.steps'?"),
        ("kind: pretrian\n", "did you mean 'pretrain'?"),
        ("kind: pretrain\nname: yes\n", "config key 'name': True is not text: write it in quotes"),
        ("a: [1\n", "is not valid YAML"),
        ("- 1\n", "does not hold a mapping"),
        ("kind: pretrain\n", "config key 'data.shards' is missing: add data.shards=VALUE"),
        ("kind: finetune\n", "is for `modalgate finetune`, not `modalgate pretrain`"),
        ("base: demo-pretrian\n", "unknown config 'demo-pretrian': did you mean 'demo-pretrain'?"),
    ],
)
def test_invalid_file_is_rejected_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_config("pretrain", written(tmp_path, "wrong", text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_settings_are_used_verbatim(minimal: str) -> None:
    config = load_config("pretrain", minimal, ["name=007", "data.label=yes", "data.split=null"])
    assert (config.name, config.data.label, config.data.split) == ("007", "yes", None)


def test_every_shipped_config_is_valid_and_described() -> None:
    for name, kind, description in list_configs():
        assert len(description) > 20
        config = load_config(kind, name, ["data.shards=packed"])
        assert config.data.shards == "packed"
        assert set(check_config(name)) <= {"data.shards"}


@pytest.mark.slow
def test_shown_config_loads_to_the_same_config(tmp_path: Path) -> None:
    overrides = ["data.shards=packed", "seed=3"]
    for name, kind, _ in list_configs():
        for plain in (False, True) if name == "surveillance-violence" else (False,):
            text = show_config(name, overrides, plain)
            assert ("#" in text) is not plain
            path = written(tmp_path, "shown", text)
            assert load_config(kind, path) == load_config(kind, name, overrides)


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("tasks: {clip_order: {}}\n", "pretrain", "tasks"),
        ("probe: {every: 5}\n", "pretrain", "probe"),
        ("task: violence\npositive: fight\n", "finetune", "task"),
        ("encoder: runs/x/encoder\n", "finetune", "encoder"),
        ("positive: fight\n", "finetune", ""),
        ("rows: {gate: {fusion: softmax}}\n", "study", "rows"),
        ("experts: {steps: 3}\n", "study", "experts"),
        ("data: {segments: 2}\n", "pretrain", ""),
    ],
)
def test_kind_is_inferred_from_the_keys(text: str, kind: str, told: str, tmp_path: Path) -> None:
    path = written(tmp_path, "mine", text + "# comment\n")
    assert check_config(path) == ["data.shards"]
    found, how = config_kind(path)
    assert found == kind
    assert how == (f"key '{told}' means {kind}" if told else f"{kind} is assumed")
    shown = show_config(path)
    assert f"# Not given: {how}.\n" in shown
    assert f"\nkind: {kind}\n" in shown
    assert f"kind: {kind}\n" in show_config(path, plain=True)
    assert load_config(kind, path, ["data.shards=packed"]).data.shards == "packed"


def test_kind_is_inferred_from_settings_too(tmp_path: Path) -> None:
    path = written(tmp_path, "mine", "data: {segments: 2}\n")
    assert config_kind(path, ["task=violence"])[0] == "finetune"
    assert "task: violence" in show_config(path, ["task=violence"])


def test_verb_decides_the_kind_of_a_file_without_a_kind(tmp_path: Path) -> None:
    plain = written(tmp_path, "plain", "data: {shards: packed}\n")
    for kind, schema in KINDS.items():
        assert isinstance(load_config(kind, plain), schema)
    # The base's kind is not the file's: a fine-tuning may be a diff of a pretraining.
    diff = written(tmp_path, "diff", "base: demo-pretrain\ndata: {shards: packed}\n")
    assert isinstance(load_config("finetune", diff), FinetuneConfig)
    assert config_kind(diff) == ("pretrain", "")
    tuned = written(tmp_path, "tuned", "base: demo-pretrain\ntask: violence\ndata: {shards: packed}\n")
    assert config_kind(tuned)[0] == "finetune"
    assert check_config(tuned) == []
    with pytest.raises(RequestError, match="config key 'tasks' is for `modalgate pretrain`, not for this config"):
        load_config("finetune", written(tmp_path, "wrong", "tasks: {clip_order: {}}\n"))
    with pytest.raises(RequestError, match=r"`modalgate pretrain`.*`modalgate finetune`"):
        load_config("finetune", "demo-pretrain")


def test_base_without_a_kind_provides_only_sections_if_kinds_differ(tmp_path: Path) -> None:
    base = written(tmp_path, "base", "name: first\ntask: violence\ndropout: 0.4\ndata: {shards: packed}\n")
    same = load_config("finetune", written(tmp_path, "same", f"kind: finetune\nbase: {base}\n"))
    assert isinstance(same, FinetuneConfig)
    assert (same.name, same.task, same.dropout) == ("first", "violence", 0.4)
    other = load_config("pretrain", written(tmp_path, "other", f"kind: pretrain\nbase: {base}\n"))
    assert (other.name, other.data.shards) == ("pretrain", "packed")


def test_tasks_and_modalities_may_be_empty(tmp_path: Path) -> None:
    for text in ("", "tasks: {}\n", "tasks: null\n", "data: {modalities: null}\n"):
        config = load_config("pretrain", written(tmp_path, "bare", text), ["data.shards=packed"])
        assert isinstance(config, PretrainConfig)
        assert config.tasks == {}
        assert config.data.modalities == []


def test_a_run_folder_is_a_config(tmp_path: Path) -> None:
    config = load_config("finetune", "demo-violence", ["data.shards=packed"])
    settings = settings_of(config, ["finetune", "demo-violence", "data.shards=packed"])
    assert settings["kind"] == "finetune"
    written(tmp_path, "config", yaml.safe_dump(settings))
    assert load_config("finetune", str(tmp_path)) == config


def test_reading_configs_needs_no_torch() -> None:
    script = (
        "import sys, modalgate.launch.config.load as c; c.show_config('demo-pretrain'); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_one_folder_of_shards_or_several(tmp_path: Path) -> None:
    for given, shards in (("a", "a"), ("007", "007"), ("[a,b]", ["a", "b"]), ("[007,s3://x/y]", ["007", "s3://x/y"])):
        assert load_config("pretrain", "demo-pretrain", [f"data.shards={given}"]).data.shards == shards
    path = tmp_path / "mine.yaml"
    path.write_text("kind: pretrain\nbase: demo-pretrain\ndata: {shards: [a, b]}\n")
    config = load_config("pretrain", str(path))
    assert config.data.shards == ["a", "b"]
    assert settings_of(config)["data"]["shards"] == ["a", "b"]
    for wrong in ("[]", "{a: b}", "null", "[a,[b]]"):
        with pytest.raises(RequestError, match=r"'data\.shards'"):
            load_config("pretrain", str(path), [f"data.shards={wrong}"])


def test_lists_of_texts_keep_their_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    lists = "classes: [yes, no, 007, 1e3, on, 'null', ~], where: {camera: [off, 03]}, labels: [1_0], label: 007"
    path.write_text(f"kind: finetune\nname: 01\ndata:\n  {{shards: [001, yes], {lists}}}\n")
    config = load_config("finetune", str(path))
    assert config.data.classes == ["yes", "no", "007", "1e3", "on", "null", "~"]
    assert config.data.where == {"camera": ["off", "03"]}
    assert (config.name, config.data.shards, config.data.labels) == ("01", ["001", "yes"], ["1_0"])
    assert config.data.label == "007"
    settings = ["data={shards: a, classes: [yes, 010]}", "data.where={room: [no, 1.50]}"]
    data = load_config("finetune", str(path), settings).data
    assert (data.classes, data.where) == (["yes", "010"], {"room": ["no", "1.50"]})
    block = "kind: finetune\ndata:\n  shards: a\n  classes:\n  - yes\n  - 1.0\n"
    path.write_text(block)
    assert load_config("finetune", str(path)).data.classes == ["yes", "1.0"]
    (tmp_path / "upper.yaml").write_text(f"base: {path}\n")
    assert load_config("finetune", str(tmp_path / "upper.yaml")).data.classes == ["yes", "1.0"]


def test_columns_that_select_clips_are_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "kind: pretrain\nbase: demo-pretrain\ndata: {shards: a, where: {camera: cam0, subject: [1, 2]}}\n"
    )
    assert load_config("pretrain", str(path)).data.where == {"camera": ["cam0"], "subject": ["1", "2"]}
    typed = ["data.where.camera=[01,yes]", "data.where.subject=null", "data.where.site=007", 'data.where.label=""']
    found = load_config("pretrain", str(path), typed).data.where
    assert found == {"camera": ["01", "yes"], "site": ["007"], "label": [""]}
    assert load_config("pretrain", str(path), ["data.classes=[007,yes]"]).data.classes == ["007", "yes"]


@pytest.mark.parametrize(
    "text", ["true", "yes", "No", "on", "1", "007", "1.50", "1e3", "0x10", "null", "~", "2026-01-02"]
)
def test_a_single_value_of_a_column_keeps_its_text(tmp_path: Path, text: str) -> None:
    path, upper = tmp_path / "mine.yaml", tmp_path / "upper.yaml"
    column = "column" if text in ("null", "~") else text
    path.write_text(f"kind: finetune\ndata:\n  shards: a\n  where: {{camera: {text}, {column}: [b]}}\n")
    assert load_config("finetune", str(path)).data.where == {"camera": [text], column: ["b"]}
    upper.write_text(f"base: {path}\ndata: {{where: {{room: {text}}}}}\n")
    above = {"camera": [text], column: ["b"], "room": [text]}
    assert load_config("finetune", str(upper)).data.where == above
    typed = load_config("finetune", None, ["data.shards=a", f"data.where.camera={text}"])
    assert typed.data.where == {"camera": [text]}
    mapping = load_config("finetune", None, ["data.shards=a", f"data.where={{camera: {text}}}"])
    assert mapping.data.where == {"camera": [text]}
    # What a run records, it reads again.
    path.write_text(yaml.safe_dump(settings_of(typed)))
    assert load_config("finetune", str(path)).data.where == {"camera": [text]}


def test_null_removes_a_column_of_the_base(tmp_path: Path) -> None:
    path, upper = tmp_path / "mine.yaml", tmp_path / "upper.yaml"
    path.write_text("kind: finetune\ndata: {shards: a, where: {camera: true, room: [1]}}\n")
    upper.write_text(f"base: {path}\ndata: {{where: {{camera: null}}}}\n")
    assert load_config("finetune", str(upper)).data.where == {"room": ["1"]}
    assert load_config("finetune", str(path), ["data.where.camera=null"]).data.where == {"room": ["1"]}
    assert load_config("finetune", str(path), ["data.where.camera=[null]"]).data.where["camera"] == ["null"]


@pytest.fixture
def own_table() -> Iterator[None]:
    """What a test declares is forgotten after it."""
    before = dict(MODALITIES)
    yield
    MODALITIES.clear()
    MODALITIES.update(before)


def test_a_config_declares_modalities(own_table: None) -> None:
    wanted = "data.modalities=[rgb,radar,mic2]"
    with pytest.raises(RequestError, match="unknown modality 'radar'"):
        load_config("pretrain", "demo-pretrain", ["data.shards=s", wanted])
    declared = "data.declare=[radar=signal:2@20,mic2=audio]"
    config = load_config("pretrain", "demo-pretrain", ["data.shards=s", wanted, declared])
    assert config.data.declare == ["radar=signal:2@20", "mic2=audio"]
    assert modality("radar") == plain_modality("radar=signal:2@20")
    with pytest.raises(RequestError, match="declares no modality"):
        load_config("pretrain", "demo-pretrain", ["data.shards=s", "data.declare=[radar]"])
    with pytest.raises(RequestError, match="'radar' is already known as signal of 2 channels"):
        load_config("pretrain", "demo-pretrain", ["data.shards=s", "data.declare=[radar=signal:3@20]"])


def test_modalities_that_shards_declare_are_known(own_table: None, tmp_path: Path) -> None:
    radar = plain_modality("radar=signal:2@20")
    sample = Sample("c", "s.tar", 2.0, {}, {"radar.npy": (0, 1)})
    shard = Shard("s.tar", 1, 1, "", {"radar": 1})
    statistics = {"radar": Statistics((0.0, 0.0), (1.0, 1.0))}
    settings = PackSettings(modalities=("radar",), declared=(radar,))
    save_index(Index(settings, statistics, (shard,), (sample,)), tmp_path)
    del MODALITIES["radar"]
    config = load_config("pretrain", "demo-pretrain", [f"data.shards={tmp_path}", "data.modalities=[radar]"])
    assert config.data.modalities == ["radar"]
    assert modality("radar") == radar
