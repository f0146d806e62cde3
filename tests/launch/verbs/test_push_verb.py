"""`push` by its command line, and the hub's name in place of a bundle in other commands."""

import json
from pathlib import Path

import pytest
from modalgate.launch.cli import main
from modalgate.launch.export.exporting import find_model
from modalgate.launch.predict.predicting import load_scorer
from modalgate.launch.runs.bundles import find_bundle

from ...hub import TOKEN, Hub


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["push", "{run}", "lab/hall"], "is not a bundle"),
        (["push", "{run}/encoder", "hall"], "'hf://hall' is not a repository of the hub: give owner/name"),
        (["embed", "hf://lab/nothing", "{run}", "{run}/features.npz"], "no 'hf://lab/nothing' on http"),
    ],
)
def test_a_wrong_request_is_one_line(
    trained_run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main([argument.replace("{run}", str(trained_run)) for argument in arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told
    assert not hub.models
