"""`export`, `push` and `serve` from the command line: output and errors."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.cli import main
from modalgate.launch.export.exporting import find_model
from modalgate.launch.export.parity import clip_windows, eager_outputs
from modalgate.launch.predict.predicting import load_scorer
from modalgate.launch.runs.bundles import find_bundle
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import load_index

from ...hub import TOKEN, Hub


def test_the_card_has_the_run_s_figures_and_the_licence(trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "violence"
    assert main(["export", str(trained_run), str(out), "--license", "CC-BY-4.0"]) == 0
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "- auc (40 clips): 0.75" in card
    assert "market: 9 clips" in card
    assert load_bundle(out).licence == "CC-BY-4.0"


def test_single_network_export_prints_three_loading_lines(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "use.json"
    out = tmp_path / "rgb.safetensors"
    # A run folder and the bundle in it serve alike.
    for place in (trained_run, trained_run / "encoder"):
        command = ["export", str(place), str(out), "--modality", "rgb", "--json", str(figures), "--overwrite"]
        assert main(command) == 0
        printed = [line[4:] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
        assert printed == json.loads(figures.read_text())["use"]
        assert len(printed) == 3
        assert "strict=True" in printed[1]


@pytest.mark.parametrize(
    ("there", "options"),
    [
        ("model", []),
        ("model.safetensors", ["--modality", "rgb"]),
        ("model.onnx", ["--format", "onnx"]),
        ("model.onnx.md", ["--format", "onnx"]),
        ("model-int8.onnx", ["--format", "onnx", "--int8"]),
    ],
)
def test_an_export_replaces_nothing_unless_asked(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str, options: list[str]
) -> None:
    place = tmp_path / there
    out = place if there in ("model", "model.safetensors") else tmp_path / "model.onnx"
    if there == "model":
        assert main(["export", str(trained_run), str(place)]) == 0
        place = place / "encoder.json"
    else:
        place.write_text("weeks of work")
    before = place.read_bytes()
    assert main(["export", str(trained_run), str(out), *options]) == 2
    assert f"{there}' already exists: give another OUT, or add --overwrite" in capsys.readouterr().err
    assert place.read_bytes() == before
    if not options or "--modality" in options:  # graphs take long
        assert main(["export", str(trained_run), str(out), *options, "--overwrite", "--json", str(place)]) == 2
        assert main(["export", str(trained_run), str(out), *options, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["{out}", "--modality", "rbg"], "did you mean 'rgb'"),
        (["{out}", "--modality", "rgb"], "ends in .safetensors"),
    ],
)
def test_invalid_request_leaves_no_files(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    before = sorted(tmp_path.iterdir())
    options = [option.replace("{out}", str(tmp_path / "out")) for option in options]
    assert main(["export", str(trained_run), *options]) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["{out}.onnx", "--format", "onnx", "--modality", "rgb"], "remove --format"),
        (["{out}", "--int8"], "add --format onnx"),
        (["{out}", "--encoder-only"], "add --format onnx or torch"),
        (["{out}.safetensors", "--modality", "rgb", "--license", "MIT"], "--license needs a model card"),
        (["{out}.onnx", "--format", "onnx", "--label", "action"], "--label is for --int8 on --shards"),
        (["{out}", "--format", "onx"], "did you mean 'onnx'"),
    ],
)
def test_incompatible_options_are_rejected(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    before = sorted(tmp_path.iterdir())
    options = [option.replace("{out}", str(tmp_path / "out")) for option in options]
    assert main(["export", str(trained_run), *options]) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def sound_run(
    tiny_backbone: Callable[..., Backbone], packed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A classifier of the sounds in `packed`, exported by one command as ONNX and int8, with its output."""
    index = load_index(packed)
    classes = sorted(set(index.column("label")))
    classifier = Classifier(tiny_backbone(("audio",)), classes).eval()
    torch.manual_seed(1)
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    statistics = {"audio": index.statistics["audio"]}
    settings = index.settings
    spec = ClipSpec(0.4, 2, 32, settings.size, settings.fps, settings.sample_rate, settings.flow_bound, statistics)
    folder = tmp_path_factory.mktemp("sound")
    save_bundle(Bundle(classifier, spec, 3, "action"), folder / "bundle")
    out = folder / "sound.onnx"
    command = ["export", str(folder / "bundle"), str(out), "--format", "onnx", "--int8", "--shards", str(packed)]
    assert main([*command, "--license", "MIT", "--json", str(folder / "cost.json")]) == 0
    return folder, packed


@pytest.mark.slow
def test_the_cost_of_int8_is_measured_on_the_labelled_clips(sound_run: tuple[Path, Path]) -> None:
    folder, packed = sound_run
    out = folder / "sound.onnx"
    content = json.loads((folder / "cost.json").read_text())
    assert content["graph"]["noise"] < 1e-4
    assert content["graph"]["clips"] < 1e-4
    cost = content["int8"]
    assert cost["bytes"] == [out.stat().st_size, (folder / "sound-int8.onnx").stat().st_size]
    assert cost["source"] == str(packed)
    # By hand, with the model instead of the graph.
    bundle, index = load_bundle(folder / "bundle"), load_index(packed)
    right = said = 0
    for windows in clip_windows(bundle, index, "label"):
        assert windows.labels is not None
        guesses = eager_outputs(bundle, windows)[0].argmax(dim=1).tolist()
        right += sum(bundle.model.classes[g] == t for g, t in zip(guesses, windows.labels, strict=True))  # pyright: ignore
        said += len(guesses)
    assert cost["windows"] == cost["labelled"] == said
    assert cost["accuracy"][0] == pytest.approx(right / said)
    assert 0 <= cost["accuracy"][1] <= 1
    assert 1 - cost["agreement"] >= abs(cost["accuracy"][1] - cost["accuracy"][0]) - 1e-9


@pytest.mark.slow
def test_graph_card_has_limits_licence_and_cost(sound_run: tuple[Path, Path]) -> None:
    folder, _ = sound_run
    cost = json.loads((folder / "cost.json").read_text())["int8"]
    card = (folder / "sound.onnx.md").read_text()
    assert "license: mit" in card
    assert "Surveillance: do not use it to identify" in card
    before, after = (f"{share:.4g}" for share in cost["accuracy"])
    assert f"| accuracy on {cost['labelled']} labelled windows | {before} | {after} |" in card
    assert f"| same first class, share of windows | - | {cost['agreement']:.4g} |" in card
    assert 'onnxruntime.InferenceSession("sound.onnx")' in card


def test_missing_label_column_is_rejected(sound_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, packed = sound_run
    out = folder / "again.onnx"
    command = ["export", str(folder / "bundle"), str(out), "--format", "onnx", "--int8", "--shards", str(packed)]
    assert main([*command, "--label", "lable"]) == 2
    assert "unknown label column 'lable': did you mean 'label'" in capsys.readouterr().err
    assert not out.exists()


def test_a_run_is_exported_pushed_and_used_by_its_name(
    trained_run: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "push.json"
    assert main(["export", str(trained_run), str(tmp_path / "violence"), "--license", "CC-BY-4.0"]) == 0
    push = ["push", str(tmp_path / "violence"), "lab/hall", "--private", "--revision", "trial"]
    assert main([*push, "--json", str(figures)]) == 0
    printed = capsys.readouterr()
    assert "load_bundle('hf://lab/hall@trial')" in printed.out
    assert TOKEN not in printed.out + printed.err + figures.read_text()
    commit = hub.models["lab/hall"].branches["trial"]
    assert json.loads(figures.read_text())["commit"] == f"{hub.url}/lab/hall/commit/{commit}"
    # The command line makes a path of it.
    place = Path("hf://lab/hall@trial")
    assert find_bundle(place).name == find_model(place).name == commit
    scorer = load_scorer(place)
    assert scorer.classes == ("calm", "fight")
    assert main(["export", str(place), str(tmp_path / "rgb.safetensors"), "--modality", "rgb"]) == 0


def test_a_pushed_repository_is_private_unless_public_is_given(trained_run: Path, hub: Hub) -> None:
    bundle = str(trained_run / "encoder")
    assert main(["push", bundle, "lab/hall"]) == 0
    assert main(["push", bundle, "lab/open", "--public"]) == 0
    assert {name: model.private for name, model in hub.models.items()} == {"lab/hall": True, "lab/open": False}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["push", "{run}", "lab/hall"], "is not a bundle"),
        (["push", "{run}/encoder", "hall"], "'hf://hall' is not a repository on the hub: give owner/name"),
        (["embed", "hf://lab/nothing", "{run}", "{run}/features.npz"], "'hf://lab/nothing' does not exist on http"),
    ],
)
def test_invalid_push_is_one_line(
    trained_run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main([argument.replace("{run}", str(trained_run)) for argument in arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told
    assert not hub.models


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart"])
def test_missing_extra_is_named_in_one_line(
    package: str, action_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", str(action_bundle)]) == 2
    assert capsys.readouterr().err == f"error: serve needs {package}: pip install 'modalgate[serve]'\n"


def test_invalid_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "is not a bundle" in capsys.readouterr().err


def test_option_out_of_range_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--max-mb", "0"), ("--queue", "-1"), ("--port", "70000")):
        assert main(["serve", str(tmp_path), option, value]) == 2
        assert option in capsys.readouterr().err
