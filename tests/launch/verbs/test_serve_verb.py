"""`modalgate serve` where it cannot begin."""

import sys
from pathlib import Path

import pytest
from modalgate.launch.cli import main


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart"])
def test_without_the_extra_one_line_says_which_it_is(
    package: str, action_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", str(action_bundle)]) == 2
    assert capsys.readouterr().err == f"error: serve needs {package}: pip install 'modalgate[serve]'\n"


def test_what_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "is not a bundle" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--max-mb", "0"), ("--queue", "-1"), ("--port", "70000")])
def test_an_option_out_of_its_range_is_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path), option, value]) == 2
    assert option in capsys.readouterr().err
