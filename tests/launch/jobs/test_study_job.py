"""A study on a tiny corpus from the command line: files, resume and errors."""

import csv
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from modalgate.launch.cli import main
from modalgate.shards.index.table import load_index, save_index

ENDLESS = ["name=ended", "seeds=2", "jobs=2", "experts.steps=1000000", "experts.log_every=1"]
ROWS = (
    "rows={gate: {fusion: sigmoid, arguments: {quality: 3}}, product: {fusion: product}, "
    "large: {fusion: gated_concat, alone: rgb}}"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    world, shards = str(folder / "world"), str(folder / "shards")
    assert main(["world", world, "--preset", "strike", "--clips", "60", "--workers", "1"]) == 0
    assert main(["pack", world, shards, "--modalities", "rgb,audio", "--size", "48", "--fps", "8"]) == 0
    return folder / "shards"


@pytest.fixture(scope="module")
def options(shards: Path) -> list[str]:
    return [
        "study-impact12",
        f"data.shards={shards}",
        f"out={shards.parent / 'runs'}",
        "name=tiny",
        "data.modalities=[rgb,audio]",
        "data.batch_size=4",
        "data.frames=8",
        "data.segments=2",
        "experts.steps=2",
        "fusion.steps=2",
        "fusion_batch_size=4",
        "noise=[1.0]",
        "seeds=1",
        "jobs=1",
        ROWS,
    ]


@pytest.mark.slow
def test_study_writes_its_tables_and_skips_finished_cells(
    options: list[str], shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, figures = shards.parent / "runs" / "tiny", shards.parent / "study.json"
    assert main(["study", *options, "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "stricter" in printed
    content = json.loads(figures.read_text())
    assert list(content) == ["rgb", "audio", "gate", "product", "large"]
    for row in content.values():
        assert 0 <= row["value"]["low"] <= row["value"]["value"] <= row["value"]["high"] <= 1
        assert row["cost"]["multiply_adds"] > 0
        assert 0 < row["chance"] < 1
        for key in ("test_best", "validation_best"):
            # Every row, single modalities too, is compared with all references but itself.
            reference = row[key]
            assert reference in ("rgb", "audio")
            assert reference in printed
            assert f"against {reference}, best on {key.partition('_')[0]}" in (run / "study.md").read_text()
    assert content["rgb"]["against_test_best"] is None or content["audio"]["against_test_best"] is None
    assert content["gate"]["subsets"].keys() == {"rgb", "audio"}
    assert content["gate"]["cost"]["parameters"] > content["rgb"]["cost"]["parameters"]
    # The control of size: all encoders and the gated concatenation, in one modality.
    sizes = {name: row["cost"]["parameters"] for name, row in content.items()}
    assert sizes["large"] == pytest.approx(sizes["product"], rel=0.05)
    assert sizes["large"] > sizes["product"] > 1.2 * sizes["rgb"]
    assert content["large"]["noise"].keys() == {"rgb"}
    assert content["large"]["subsets"] == {}
    assert content["gate"]["oracle_noise"] == {}
    for name, curve in content["product"]["oracle_noise"].items():
        # On clean clips the oracle is the product.
        assert list(curve) == ["0", "1"]
        assert curve["0"] == content["product"]["noise"][name]["0"]
    assert "oracle, 1" in (run / "study.csv").read_text()
    assert "| gate |" in (run / "study.md").read_text()
    with (run / "study.csv").open() as file:
        titles = [row[0] for row in csv.reader(file) if row[0].startswith("#")]
    assert titles[-2:] == ["# Noise on rgb, accuracy", "# Noise on audio, accuracy"]

    cells = {path: path.stat().st_mtime_ns for path in run.glob("fold-0/seed-0/rows/*.json")}
    assert len(cells) == 5
    # One cell is lost; resuming makes it again, bit for bit, and leaves the others.
    lost = run / "fold-0" / "seed-0" / "rows" / "gate.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    assert main(["study", *options, "--resume", "--json", str(figures)]) == 0
    assert json.loads(lost.read_text()) == before
    again = {path: path.stat().st_mtime_ns for path in cells if path != lost}
    assert again == {path: when for path, when in cells.items() if path != lost}
    assert main(["report", str(run), "--out", str(shards.parent / "report.html")]) == 0
    assert "Fusion mechanisms, accuracy" in (shards.parent / "report.html").read_text()
    # Other clips under the same name are other clips.
    index = load_index(shards)
    other = replace(index.shards[0], sha256="0" * 64)
    save_index(replace(index, shards=(other, *index.shards[1:])), shards)
    capsys.readouterr()
    assert main(["study", *options, "--resume"]) == 2
    assert "fingerprint was" in capsys.readouterr().err
    save_index(index, shards)


@pytest.mark.slow
def test_cross_fitted_and_joint_rows_are_scored_and_resumed(options: list[str], shards: Path) -> None:
    rows = (
        "rows={product: {fusion: product}, gate: {fusion: reliability}, "
        "pareto: {fusion: concat, joint: true, aids: {pareto: 1.5}}, "
        "distilled: {fusion: gated_concat, joint: true, aids: {distillation: 0.1}}, "
        "alternated: {fusion: entropy, joint: true, aids: {alternation: 0.1}}, "
        "relearned: {fusion: concat, joint: true, aids: {relearning: 3, relearn_every: 0.5}}}"
    )
    fitted = [*options[:-1], "name=fitted", "expert_split=null", "experts.cross_fit=2", "taught_noise=0.5", rows]
    assert main(["study", *fitted]) == 0
    folder = shards.parent / "runs" / "fitted" / "fold-0" / "seed-0"
    assert {path.name for path in folder.glob("expert-*/part-*")} == {"part-0", "part-1"}
    gate, product = (json.loads((folder / "rows" / f"{name}.json").read_text()) for name in ("gate", "product"))
    assert gate["keys"] == product["keys"]
    # The product joins the experts as they are; its weights are one.
    assert product["weights"] == {"rgb": 1.0, "audio": 1.0}
    before = json.loads((folder / "rows" / "pareto.json").read_text())
    assert set(before["noise"]) == {"rgb", "audio"}
    lost = ("gate", "pareto", "distilled", "alternated", "relearned")
    stored = {name: (folder / "rows" / f"{name}.json").read_bytes() for name in lost}
    for name in lost:
        (folder / "rows" / f"{name}.json").unlink()
    assert main(["study", *fitted, "--resume"]) == 0
    for name in lost:
        assert (folder / "rows" / f"{name}.json").read_bytes() == stored[name]


@pytest.mark.slow
def test_sigterm_also_stops_the_training_processes(options: list[str], launch: Callable[..., list[int]]) -> None:
    folder = Path(next(word for word in options if word.startswith("out=")).removeprefix("out=")) / "ended"
    # Experts are started in order: once the second one logs, the first one trains too.
    second = str(folder / "fold-0" / "seed-0" / "expert-audio")
    seen: set[psutil.Process] = set()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(launch, ["study", *options, *ENDLESS], kill=1, run=second, signal="SIGTERM")
        while not ended.done():
            for child in psutil.Process().children():
                # Processes of other tests may end while they are looked at.
                with suppress(psutil.Error):
                    if "launched.py" in " ".join(child.cmdline()):
                        seen |= set(child.children(recursive=True))
            time.sleep(0.1)
    assert ended.result() == [130]
    assert len(seen) >= 3  # the study and two that train
    _, alive = psutil.wait_procs(seen, timeout=120)
    assert not alive


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rows={x: {fusion: sofmax}}"], "unknown fusion of row 'x' 'sofmax': did you mean 'softmax'"),
        (["rows={rgb: {fusion: softmax}}"], "row 'rgb' has the name of a modality"),
        (["rows={x: {fusion: softmax, arguments: {heat: 1}}}"], "unknown argument of fusion softmax 'heat'"),
        (["data.modalities=[rgb]"], "two or more modalities"),
        (["metric=auc"], "metric auc needs two classes"),
        (["taught_noise=0.5", "noise=[]"], "taught_noise needs noise levels"),
        (["validation_group=person"], "unknown column of validation_group 'person'"),
        # All clips of this corpus have the same value there: it is the column that validation is divided by.
        (["data.folds=2", "validation_group=z"], "2 folds need as many groups, there are 1"),
        (["rows={x: {fusion: reliability, joint: true}}"], "remove joint=true"),
        (["rows={x: {fusion: concat, aids: {distillation: 1.0}}}"], "set joint=true in the row"),
        (["rows={x: {fusion: concat, alone: rbg}}"], "unknown modality 'rbg': did you mean 'rgb'"),
        (["rows={x: {fusion: concat, alone: depth}}"], "unknown modality 'alone' of row 'x' 'depth'"),
        (["rows={x: {fusion: concat, alone: rgb, joint: true}}"], "remove joint and aids"),
        (["rows={x: {fusion: reliability, arguments: {supervision: -1}}}"], "give 0 or more"),
        (["rows={x: {fusion: entropy, aids: {alternation: 0.1}}}"], "set joint=true in the row"),
        (["rows={x: {fusion: concat, joint: true, aids: {alternation: 0.1}}}"], "set fusion=entropy"),
        (
            ["rows={x: {fusion: concat, joint: true, aids: {relearning: 3}}}", "experts.average=0.9"],
            "experts.average",
        ),
        (["name=taken"], "already holds"),
    ],
)
def test_invalid_study_is_rejected_before_training(
    settings: list[str], message: str, options: list[str], shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards.parent / "runs" / "taken").mkdir(parents=True, exist_ok=True)
    (shards.parent / "runs" / "taken" / "config.yaml").touch()
    assert main(["study", *options, "name=other", *settings]) == 2
    assert message in capsys.readouterr().err
    assert not (shards.parent / "runs" / "other").exists()
