"""The Python functions do what the commands do, and return the printed figures."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import modalgate
import numpy as np
import pytest
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.launch.cli import main
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import load_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.worlds.write_world import write_world


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films with sound, and a file that is not a film."""
    folder, generator = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for name, frames in (("a", 20), ("b", 10)):
        pictures = generator.integers(0, 255, (frames, 32, 32, 3)).astype(np.uint8)
        sound = (generator.standard_normal(frames * 800) * 0.1).astype(np.float32)
        write_video(folder / f"{name}.mkv", pictures, 10, sound=sound, sample_rate=8000)
    (folder / "torn.mp4").write_bytes(b"no film at all" * 40)
    return folder


def test_pack_writes_the_same_shards(tmp_path: Path) -> None:
    write_world(tmp_path / "world", "strike", 14, workers=1)
    found = modalgate.pack(tmp_path / "world", tmp_path / "mine", modalities=["rgb"], size=32, fps=8, workers=1)
    typed = ["--modalities", "rgb", "--size", "32", "--fps", "8", "--workers", "1"]
    assert main(["pack", str(tmp_path / "world"), str(tmp_path / "typed"), *typed]) == 0
    assert found.index.fingerprint == load_index(tmp_path / "typed").fingerprint
    assert (found.labelled, found.unlabelled, found.rejected) == (14, 0, [])
    assert found.summary.clips == len(found.index.samples) == 14
    with pytest.raises(RequestError, match="no folder at"):
        modalgate.pack(tmp_path / "nowhere", tmp_path / "other")


def test_pretrain_trains_the_same_encoder_and_resumes(tmp_path: Path, tiny_config: str) -> None:
    done = modalgate.pretrain(tiny_config, settings={"out": tmp_path, "name": "mine", "train.steps": 4})
    assert main(["pretrain", tiny_config, f"out={tmp_path}", "name=typed", "train.steps=4"]) == 0
    weights = [(tmp_path / name / "encoder" / "encoder.safetensors").read_bytes() for name in ("mine", "typed")]
    assert weights[0] == weights[1]
    assert (done.run, done.encoders) == (tmp_path / "mine", [tmp_path / "mine" / "encoder"])
    assert {"loss", "correspondence/accuracy", "clips"} <= set(done.figures)
    facts = json.loads((done.encoders[0] / "encoder.json").read_text())
    assert facts["provenance"]["command"].startswith(f"modalgate pretrain {tiny_config} out=")
    with pytest.raises(RequestError, match="already holds a run"):
        modalgate.pretrain(tiny_config, settings=[f"out={tmp_path}", "name=mine"])
    again = modalgate.pretrain(tiny_config, settings=[f"out={tmp_path}", "name=mine", "train.steps=5"], resume="auto")
    assert json.loads((again.run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5
    with pytest.raises(RequestError, match=r"overrides must be a list or a mapping, not the text 'train.steps=4'"):
        modalgate.pretrain(tiny_config, settings="train.steps=4")
    with pytest.raises(RequestError, match=r"unknown config key 'train.stps'"):
        modalgate.pretrain(config=tiny_config, overrides={"train.stps": 4})
    with pytest.raises(RequestError, match=r"unknown config key 'train.stps'"):
        modalgate.pretrain(shards_or_config=tiny_config, settings={"train.stps": 4})
    with pytest.raises(RequestError, match="give one `config`"):
        modalgate.pretrain()


@pytest.mark.slow
def test_probe_finetune_and_predict_return_what_the_verbs_print(
    tmp_path: Path, tiny_config: str, packed: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = modalgate.pretrain(tiny_config, settings={"out": tmp_path, "name": "e", "train.steps": 2}).encoders[0]
    split = {"train_split": "pretrain+train", "test_split": "test"}
    probed = modalgate.probe(encoder, packed, workers=0, **split)
    typed = ["--train-split", "pretrain+train", "--workers", "0", "--json", str(tmp_path / "probe.json")]
    assert main(["probe", str(encoder), str(packed), *typed]) == 0
    figures = json.loads((tmp_path / "probe.json").read_text())
    assert [row.feature for row in probed.rows] == [row["feature"] for row in figures["rows"]]
    assert probed.weights == pytest.approx(figures["gates"])
    settings = {"out": tmp_path, "name": "c", "train.steps": 2, "data.split": "pretrain+train", "data.workers": 0}
    settings |= {"wandb": "disabled", "data.batch_size": 4}
    tuned = modalgate.finetune(packed, encoder=encoder, settings=settings)
    assert tuned.classifier == tmp_path / "c" / "encoder"
    assert 0 <= tuned.metrics["accuracy"] <= 1
    assert set(tuned.intervals) <= set(tuned.metrics)
    assert tuned.scores.probabilities.shape == (len(tuned.scores.keys), 2)
    assert {choice.key for choice in tuned.chosen} >= {"train.learning_rate"}
    name = next(iter(modalgate.load_bundle(tuned.classifier).model.classes))
    # Any score starts an alarm, which lasts to the end.
    low = {"alarm": name, "on": 1e-6, "off": 0.0, "smooth": 0.0}
    found = modalgate.predict(tuned.classifier, films / "a.mkv", hop=0.5, **low)
    pieces = found.windows
    assert list(found) == pieces
    assert (found[0], found[-1], len(found)) == (pieces[0], pieces[-1], len(pieces))
    capsys.readouterr()
    typed = ["--hop", "0.5", "--alarm", name, "--on", "1e-6", "--off", "0", "--smooth", "0"]
    assert main(["predict", str(tuned.classifier), str(films / "a.mkv"), *typed]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    windows = [line for line in lines if line["kind"] == "window"]
    assert [piece.start for piece in pieces] == [line["start"] for line in windows]
    assert [piece.probabilities for piece in pieces] == [pytest.approx(line["probabilities"]) for line in windows]
    clip = next(line for line in lines if line["kind"] == "clip")
    assert (found.scores, found.peaks) == (pytest.approx(clip["probabilities"]), pytest.approx(clip["peaks"]))
    assert (found.whole, found.decision) == (clip["whole"], clip.get("class"))
    ends = [(line["on"], line["off"]) for line in lines if line["kind"] == "alarm" and line["state"] == "off"]
    assert (found.alarm, [(alarm.on, alarm.off) for alarm in found.alarms]) == (name, ends)
    assert len(ends) == 1
    with pytest.raises(RequestError, match="class of this model"):
        modalgate.predict(tuned.classifier, films / "a.mkv", alarm="nothing")
    with pytest.raises(DataError, match="more than 1"):
        modalgate.predict(tuned.classifier, films / "a.mkv", hop=0.5, max_seconds=1)
    with pytest.raises(DataError, match=r"torn.mp4' cannot be read"):
        modalgate.predict(tuned.classifier, films / "torn.mp4")
    with pytest.raises(RequestError, match="no file at"):
        modalgate.predict(tuned.classifier, films / "none.mkv")


def test_embed_gives_the_features_of_a_folder(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, films: Path, tmp_path: Path
) -> None:
    save_bundle(Bundle(tiny_backbone().eval(), tiny_clip, 2), tmp_path / "encoder")
    found = modalgate.embed(tmp_path / "encoder", films)
    assert list(found.recordings) == ["a.mkv", "b.mkv"]
    assert list(found.rejected) == ["torn.mp4"]
    for name, embedding in found.recordings.items():
        alone = modalgate.load_encoder(tmp_path / "encoder").embed(films / name)
        assert np.array_equal(embedding.features, alone.features)
        assert embedding.features.shape == (len(embedding.start), 8)


@pytest.mark.slow
def test_evaluation_and_export_return_what_the_verbs_print(tmp_path: Path, tiny_config: str, packed: Path) -> None:
    settings = {"out": tmp_path, "train.steps": 2, "data.split": "pretrain+train", "data.workers": 0}
    settings |= {"wandb": "disabled", "data.batch_size": 4}
    runs = [modalgate.finetune(packed, {**settings, "name": f"c{seed}", "seed": seed}).run for seed in (0, 1)]
    figures = tmp_path / "figures.json"

    def typed(*words: object) -> dict[str, Any]:
        figures.unlink(missing_ok=True)
        assert main([*map(str, words), "--json", str(figures)]) == 0
        return json.loads(figures.read_text())

    compared, printed = modalgate.compare(runs, out=tmp_path / "pairs.html"), typed("compare", *runs)
    assert [[pair.first, pair.second, asdict(pair.accuracy), pair.p] for pair in compared.pairs] == [
        [pair["first"], pair["second"], pair["accuracy"], pair["p"]] for pair in printed["pairs"]
    ]
    assert (tmp_path / "pairs.html").is_file()
    common = {"split": "test", "axis": ["blur"], "workers": 0}
    measured = modalgate.robustness(runs[0], packed, **common)
    printed = typed("robustness", runs[0], packed, "--split", "test", "--axis", "blur", "--workers", 0)
    mine = measured.plain()
    assert [row["accuracy"] for row in mine["missing"]] == [row["accuracy"] for row in printed["missing"]]
    assert [curve["area"] for curve in mine["curves"]] == [curve["area"] for curve in printed["curves"]]
    assert mine["met_in_training"] == printed["met_in_training"]
    written = modalgate.export(runs[0], tmp_path / "mine")
    printed = typed("export", runs[0], tmp_path / "typed")
    assert written.figures == printed
    assert (written.out, written.classifier) == (tmp_path / "mine", True)
    assert modalgate.load_bundle(written.out).model.classes == modalgate.load_bundle(tmp_path / "typed").model.classes
    single = modalgate.export(runs[0], tmp_path / "rgb.safetensors", modality="rgb")
    assert "timm" in "".join(single.use)
    with pytest.raises(RequestError, match="--int8 quantises an ONNX graph"):
        modalgate.export(runs[0], tmp_path / "other", int8=True)
    assert modalgate.report(runs).page == runs[0] / "report.html"
    assert "<html" in (runs[0] / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_detect_returns_what_the_verb_prints(tmp_path: Path, tiny_config: str, packed: Path, films: Path) -> None:
    settings = {"out": tmp_path, "name": "c", "train.steps": 2, "data.split": "pretrain+train", "data.workers": 0}
    run = modalgate.finetune(packed, settings | {"wandb": "disabled", "data.batch_size": 4}).run
    name = modalgate.load_bundle(run / "encoder").model.classes[1]
    (tmp_path / "films").mkdir()
    for film in ("a", "b"):
        shutil.copy(films / f"{film}.mkv", tmp_path / "films")
    spans = tmp_path / "spans.csv"
    spans.write_text("video,start,end\na.mkv,0.5,1.0\n")
    found = modalgate.detect(run, tmp_path / "films", spans=spans, label=name, threshold=0.4)
    figures = tmp_path / "figures.json"
    typed = ["--spans", str(spans), "--label", name, "--threshold", "0.4", "--json", str(figures)]
    assert main(["detect", str(run), str(tmp_path / "films"), *typed]) == 0
    printed = json.loads(figures.read_text())
    assert [video.name for video in found.videos] == list(printed["videos"])
    assert json.loads(json.dumps([asdict(table) for table in found.result.tables])) == printed["tables"]


def test_study_and_wrong_requests_of_evaluation(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="unknown config key 'rws'"):
        modalgate.study("study-utd-mhad", {"rws": ["concat"]})
    with pytest.raises(RequestError, match="none"):
        modalgate.study("study-utd-mhad", [f"data.shards={tmp_path / 'none'}", f"out={tmp_path}"])
    with pytest.raises(RequestError, match="none"):
        modalgate.compare([tmp_path / "none", tmp_path / "nor"])
    with pytest.raises(RequestError, match="none"):
        modalgate.robustness(tmp_path / "model", tmp_path / "none")
