"""Every printed `next:` command runs verbatim, in a folder with a space in its name, on shards without a split."""

import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modalgate.launch import cli
from modalgate.launch.runs.next_step import (
    RECORDINGS,
    VIDEO,
    browse,
    comparison_line,
    encoder_line,
    features_line,
    finetune_line,
    model_line,
    next_line,
    prediction_line,
    run_line,
)
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings

# What a test has no time for: nothing of it changes whether a line works.
SMALL = ["train.steps=1", "data.batch_size=4", "data.workers=0", "train.log_every=1", "wandb=disabled"]
TINY = ["data.size=32", "model.width=8"]


def line_of(text: str) -> str:
    """The command of the one line `next:`."""
    (line,) = [line for line in text.splitlines() if line.startswith("next: ")]
    return line.removeprefix("next: ")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "my clips"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_printed_commands_run_from_world_to_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(line: str, *more: str, **filled: str) -> str:
        """Runs a printed command with placeholders filled in; returns the next printed command."""
        words = [filled.get(word, word) for word in shlex.split(line)]
        assert words[0] == "modalgate"
        assert cli.main([*words[1:], *more]) == 0, (line, capsys.readouterr())
        out, err = capsys.readouterr()
        return line_of(out + err)

    made = run("modalgate world 'the world' --preset strike --clips 20 --workers 1")
    source = Path("the world")
    with (source / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: row[name] for name in ("video", "label")} for row in csv.DictReader(file)]
    with (source / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("video", "label"))
        writer.writeheader()
        writer.writerows(rows)
    film = str(source / rows[0]["video"])

    packed = run(made, "--size", "32", "--fps", "8", "--workers", "1")
    assert packed == run("modalgate inspect 'the world-shards'") == run("modalgate verify 'the world-shards'")
    pretrained = run(packed, *SMALL, *TINY)
    assert shlex.split(pretrained)[1] == "probe"
    probed = run(pretrained, "--workers", "0")
    assert shlex.split(probed)[1] == "finetune"
    finetuned = run(probed, *SMALL, "hold_out=false")
    assert finetuned == "modalgate report runs/finetune"
    assert run(finetuned).startswith("python -m webbrowser file:///")
    predicted = f"modalgate predict runs/finetune {VIDEO} --out windows.jsonl --png windows.png"
    reported = run(predicted, **{VIDEO: film})
    assert Path("windows.jsonl").is_file()
    assert Path("windows.png").is_file()
    page = run(reported)
    assert page.startswith("python -m webbrowser file:///")

    classifier = "runs/finetune/fold-0"
    assert (
        run(
            f"modalgate export {classifier} 'an export'",
        )
        == f"modalgate predict 'an export' {VIDEO} --out windows.jsonl --png windows.png"
    )
    Path("windows.jsonl").unlink()
    run(f"modalgate predict 'an export' {VIDEO} --out windows.jsonl", **{VIDEO: film})
    embedding = run("modalgate export runs/pretrain 'an encoder'")
    looked = run(embedding, "--workers", "0", **{RECORDINGS: str(source)})
    done = subprocess.run([sys.executable, *shlex.split(looked)[1:]], capture_output=True, text=True, check=True)
    assert "embedding" in done.stdout or "[" in done.stdout
    measured = run("modalgate robustness runs/finetune 'the world-shards' --axis freeze --workers 0")
    assert measured == "modalgate report runs/finetune"
    Path("spans.csv").write_text(f"video,start,end\n{Path(film).stem},0,0.5\n", encoding="utf-8")
    few = Path("few")
    few.mkdir()
    os.link(film, few / Path(film).name)
    found = run(f"modalgate detect {classifier}/encoder few --spans spans.csv --label contact")
    assert shlex.split(found)[1:] == ["predict", f"{classifier}/encoder", str(few / Path(film).name)]
    run(found, "--out", "found.jsonl")


INDEX = Index(PackSettings(), {}, (), ())


def samples(*columns: str) -> Index:
    rows = [dict.fromkeys(columns, "ab"[n % 2]) for n in range(8)]
    return Index(PackSettings(), {}, (), tuple(Sample(f"k{n}", "s", 1.0, row, {}) for n, row in enumerate(rows)))


def test_next_step_after_pretraining_depends_on_labels(tmp_path: Path) -> None:
    encoder = tmp_path / "run one" / "encoder"
    quoted = shlex.quote(str(encoder))
    assert encoder_line(encoder, "s", samples("label", "room")) == f"next: modalgate probe {quoted} s"
    assert encoder_line(encoder, "s", samples("split", "room")) == f"next: modalgate probe {quoted} s --label room"
    words = shlex.split(encoder_line(encoder, "s", samples("split", "group")))
    assert words[2:] == ["embed", str(encoder), "s", str(encoder.parent / "features.npz")]


def test_lines_are_quoted_and_keep_no_credentials() -> None:
    assert next_line("probe", Path("a b"), "c'd") == "next: modalgate probe 'a b' 'c'\"'\"'d'"
    assert "secret" not in finetune_line("run", "https://me:secret@host/shards", "label")
    assert shlex.split(finetune_line("r", "s", "room", "data.folds=3"))[-1] == "data.folds=3"
    assert (
        model_line("m", classifier=True) == f"next: modalgate predict m {VIDEO} --out windows.jsonl --png windows.png"
    )
    assert RECORDINGS in model_line("m", classifier=False)
    assert browse("http://127.0.0.1:80") == "next: python -m webbrowser http://127.0.0.1:80"
    assert browse(Path("/a b/c.html")) == "next: python -m webbrowser file:///a%20b/c.html"


def test_next_step_of_a_run_is_a_report_and_of_a_bundle_a_use(tmp_path: Path) -> None:
    assert run_line(tmp_path, "m") == f"next: modalgate predict m {VIDEO} --out windows.jsonl --png windows.png"
    (tmp_path / "config.yaml").touch()
    assert run_line(tmp_path, "m") == f"next: modalgate report {tmp_path}"
    page = comparison_line([Path("a"), Path("b")], None)
    assert shlex.split(page)[2:] == ["compare", "a", "b", "--out", "comparison.html"]
    assert comparison_line([Path("a")], Path("/c.html")).endswith("webbrowser file:///c.html")


def test_next_step_after_a_prediction_is_a_chart(tmp_path: Path) -> None:
    bundle, run = tmp_path / "bundle", tmp_path / "run"
    for folder in (bundle, run / "encoder"):
        folder.mkdir(parents=True)
    (run / "config.yaml").touch()
    out = Path("w.jsonl")
    assert shlex.split(prediction_line(run / "encoder", out))[2:] == ["report", str(run), "--prediction", "w.jsonl"]
    assert shlex.split(prediction_line(bundle, out))[2:5] == ["predict", str(bundle), VIDEO]


def test_next_step_after_embedding_reads_the_features(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "it's.npz"
    np.savez(path, embedding=np.zeros(2))
    words = shlex.split(features_line(path).removeprefix("next: "))
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
    assert "embedding" in done.stdout
    assert "pyarrow" in features_line(Path("x.parquet"))
