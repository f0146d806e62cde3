"""`export` by its command line: the card it writes, the single network, and what it refuses."""

import json
from pathlib import Path

import pytest
from modalgate.fusion import load_bundle
from modalgate.launch.cli import main


def test_the_card_has_the_run_s_figures_and_the_licence(trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "violence"
    assert main(["export", str(trained_run), str(out), "--license", "CC-BY-4.0"]) == 0
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "- auc (40 clips): 0.75" in card
    assert "market: 9 clips" in card
    assert load_bundle(out).licence == "CC-BY-4.0"


def test_one_network_prints_the_three_lines_that_load_it(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "use.json"
    out = tmp_path / "rgb.safetensors"
    # A run folder and the bundle in it serve alike.
    for place in (trained_run, trained_run / "encoder"):
        assert main(["export", str(place), str(out), "--modality", "rgb", "--json", str(figures)]) == 0
        printed = [line[4:] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
        assert printed == json.loads(figures.read_text())["use"]
        assert len(printed) == 3
        assert "strict=True" in printed[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["{out}", "--modality", "rbg"], "did you mean 'rgb'"),
        (["{out}", "--modality", "rgb"], "ends in .safetensors"),
    ],
)
def test_a_wrong_request_leaves_nothing(
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
        (["{out}.onnx", "--format", "onnx", "--modality", "rgb"], "leave out --format"),
        (["{out}", "--int8"], "add --format onnx"),
        (["{out}", "--encoder-only"], "add --format onnx or torch"),
        (["{out}.onnx", "--format", "onnx", "--license", "MIT"], "--license goes on a bundle's card"),
        (["{out}", "--format", "onx"], "did you mean 'onnx'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    before = sorted(tmp_path.iterdir())
    options = [option.replace("{out}", str(tmp_path / "out")) for option in options]
    assert main(["export", str(trained_run), *options]) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_graph_and_its_int8_twin_with_figures(trained_run: Path, tmp_path: Path) -> None:
    figures, out = tmp_path / "cost.json", tmp_path / "violence.onnx"
    assert main(["export", str(trained_run), str(out), "--format", "onnx", "--int8", "--json", str(figures)]) == 0
    content = json.loads(figures.read_text())
    assert content["graph"]["noise"] < 1e-4
    assert content["int8"]["bytes"] == [out.stat().st_size, (tmp_path / "violence-int8.onnx").stat().st_size]
    assert content["int8"]["agreement"] is not None
    assert content["int8"]["source"] == "noise"
