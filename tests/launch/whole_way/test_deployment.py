"""Every way to apply a model gives its evaluated scores of the packed test clips."""

import asyncio
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.cli import main
from modalgate.launch.config.load import list_configs, partial_config
from modalgate.launch.jobs.building import application_of, request_of
from modalgate.launch.serve.score_stream import Wish, score
from modalgate.launch.serve.uploads import place
from modalgate.launch.serve.waiting_queue import Turns
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.sources import find_sources
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.tasks.evaluation.scores import load_scores, score_clips
from modalgate.tasks.features.extract import extract_features

TOLERANCE = 1e-4
CLASSES = ("calm", "fight")
RATE = 16000


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings of 1 to 2 s, calm ones dark and still, the others bright and in motion.

    One is silent, one has no sound track, one no depth, one no sensor."""
    folder = tmp_path_factory.mktemp("media")
    for name in ("depth", "inertial"):
        (folder / name).mkdir()
    rows = [("video", "depth", "inertial", "label")]
    for number in range(6):
        generator = np.random.default_rng(number)
        fight, frames = number % 2, 12 + 2 * number
        pictures = generator.integers(0, 40, (frames, 40, 52, 3)) + 30 + 150 * fight
        for frame in range(frames if fight else 0):
            pictures[frame, 8:24, frame : frame + 16] = 20
        sound = generator.normal(0, 0.02 + 0.1 * fight, round(frames / 12 * RATE)).astype(np.float32)
        tracks = {"sound": sound * (number != 2), "sound_codec": "pcm_s16le"} if number != 4 else {}
        write_video(folder / f"c{number}.mkv", pictures.astype(np.uint8), 12, **tracks)  # pyright: ignore
        depth = generator.integers(500, 900, (frames, 32, 44)) + 2000 * fight
        write_video(
            folder / "depth" / f"c{number}.mkv",
            depth.astype(np.uint16),
            12,
            codec="ffv1",
            pixel_format="gray16le",
        )
        np.save(folder / "inertial" / f"c{number}.npy", generator.normal(fight, 0.3, (frames * 5, 6)))
        beside = [f"depth/c{number}.mkv" * (number != 5), f"inertial/c{number}.npy" * (number != 3)]
        rows.append((f"c{number}.mkv", *beside, CLASSES[fight]))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@dataclass(frozen=True)
class Trained:
    """A classifier in `folder`, its test clips, their media, and their evaluated scores by key."""

    folder: Path
    bundle: Bundle
    index: Index
    media: Path
    scores: dict[str, dict[str, float]]
    gates: dict[str, list[float]]


@pytest.fixture(scope="module")
def trained(
    media: Path, tiny_backbone: Callable[..., Backbone], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trained]:
    """`trained(modalities, stretch, views, region)`: a head fitted to the clips on a random backbone."""

    @cache
    def build(
        modalities: tuple[str, ...], stretch: float = 0.0, views: int = 3, region: Any = None, **more: Any
    ) -> Trained:
        folder = tmp_path_factory.mktemp("trained")
        packed = ("rgb", "flow", "depth", "audio", "inertial")
        pack(media, folder / "shards", PackSettings(modalities=packed, size=32, fps=10.0, region=region), workers=1)
        index = load_index(folder / "shards")
        request = ClipRequest(modalities, views, 0.4, 2, 32, stretch)
        backbone = tiny_backbone(modalities, fusion="softmax").eval()
        stream = ClipStream(index, request, 4, label="label", classes=CLASSES)
        (features,) = extract_features([backbone], ClipSpec.of(index, request), stream)
        fused = features.values["fused"]
        by_key = {sample.key: CLASSES.index(sample.labels["label"]) for sample in index.samples}
        classifier = Classifier(backbone, CLASSES).eval()
        _fit(classifier, fused, [by_key[key] for key in features.keys])
        bundle = Bundle(
            classifier,
            ClipSpec.of(index, request),
            views,
            "violence",
            "fight",
            application=replace(application_of(request, index), **more),
        )
        save_bundle(bundle, folder / "model")
        found = score_clips(classifier, bundle.spec, stream)
        scores = {key: dict(zip(CLASSES, row.tolist(), strict=True)) for key, row in _rows(found)}
        gates = dict(zip(found.keys, found.weights.tolist(), strict=True))
        for key, number in by_key.items():
            assert max(scores[key], key=scores[key].__getitem__) == CLASSES[number], "wrong class"
        return Trained(folder / "model", load_bundle(folder / "model"), index, media, scores, gates)

    return build


def _rows(scores: Any) -> Any:
    return zip(scores.keys, scores.probabilities, strict=True)


def _fit(classifier: Classifier, fused: Any, labels: Sequence[int]) -> None:
    """A head that separates the labels on whitened features, in which the planted difference is large."""
    centred = fused - fused.mean(axis=0)
    target = np.array(labels) * 2.0 - 1
    weight = np.linalg.solve(
        centred.T @ centred + 1e-4 * np.trace(centred.T @ centred) * np.eye(len(centred.T)), centred.T @ target
    )
    bias = -fused.mean(axis=0) @ weight
    with torch.no_grad():
        linear = classifier.head[1]  # pyright: ignore
        linear.weight.copy_(torch.tensor(np.stack([-weight, weight])))  # pyright: ignore
        linear.bias.copy_(torch.tensor(np.array([-bias, bias])))  # pyright: ignore


def check(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for key, scores in expected.items():
        assert found[key] == pytest.approx(scores, abs=TOLERANCE), key


def predicted(model: Path, source: Path, folder: Path, *more: str) -> dict[str, dict[str, Any]]:
    """The `clip` line of every recording by its stem; the figures and the one piece of each say the same."""
    out, figures = folder / "lines.jsonl", folder / "figures.json"
    command = ["predict", str(model), str(source), "--out", str(out), "--json", str(figures), "--overwrite", *more]
    assert main(command) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    told = {Path(line.get("file", source.name)).stem: line for line in lines if line["kind"] == "clip"}
    pieces = [line for line in lines if line["kind"] == "window"]
    recordings = json.loads(figures.read_text())["recordings"]
    assert len(told) == len(recordings) == len(pieces)
    for (key, line), entry, piece in zip(told.items(), recordings, pieces, strict=True):
        assert line["whole"], key
        assert line["pieces"] == 1
        assert entry["means"] == piece["probabilities"] == line["probabilities"]
        assert (entry["whole"], piece["whole"], entry["decision"]) == (True, True, line["class"])
        assert (piece["start"], piece["end"]) == (0, line["end"])
    return told


ALL = ("rgb", "flow", "depth", "audio", "inertial")
CASES = {
    "one view": (("rgb", "flow"), 0.0, 1, None),
    "everything": (ALL, 0.0, 3, None),
    "stretched": (("rgb", "flow", "depth", "inertial"), 0.6, 2, None),
    "region": (("rgb", "flow"), 0.0, 2, (0.25, 0.0, 0.5, 1.0)),
    "no pictures": (("depth", "inertial"), 0.6, 2, None),
}


@pytest.mark.parametrize("case", CASES)
def test_predict_scores_every_test_clip_as_the_evaluation_did(
    case: str, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    """From the original file, which packing encoded again, and from the packed clips."""
    model = trained(*CASES[case])
    names = model.bundle.backbone.modalities
    for source in (model.media, Path(str(model.index.folder))):
        told = predicted(model.folder, source, tmp_path)
        # A recording without any modality of the model is not predicted.
        check({key: line["probabilities"] for key, line in told.items()}, model.scores)
        for key, line in told.items():
            assert list(line["gates"].values()) == pytest.approx(model.gates[key], abs=TOLERANCE)
            assert list(line["gates"]) == list(names)


@pytest.mark.slow
def test_recording_with_further_files(trained: Callable[..., Trained], tmp_path: Path) -> None:
    model = trained(*CASES["everything"])
    for source in find_sources(model.media):
        beside = [f"--with={name}={path}" for name, path in source.files.items() if name != "video"]
        told = predicted(model.folder, source.path, tmp_path, *beside)
        check({source.key: told[source.key]["probabilities"]}, {source.key: model.scores[source.key]})


@pytest.mark.slow
@pytest.mark.parametrize("case", ["stretched", "everything"])
def test_onnx_gives_the_same_scores(case: str, trained: Callable[..., Trained], tmp_path: Path) -> None:
    model, graph = trained(*CASES[case], threshold=0.6, temperature=2.0), tmp_path / "model.onnx"
    assert main(["export", str(model.folder), str(graph), "--format", "onnx"]) == 0
    told = predicted(graph, model.media, tmp_path)
    check({key: line["probabilities"] for key, line in told.items()}, model.scores)
    theirs = predicted(model.folder, model.media, tmp_path)
    for key, line in told.items():
        assert line["calibrated"] == pytest.approx(theirs[key]["calibrated"], abs=TOLERANCE)
        assert line["class"] == theirs[key]["class"]


@pytest.mark.parametrize("case", ["everything", pytest.param("stretched", marks=pytest.mark.slow)])
def test_server_gives_the_same_scores(case: str, trained: Callable[..., Trained], tmp_path: Path) -> None:
    model = trained(*CASES[case])

    async def ask(files: dict[str, Path]) -> list[Any]:
        turns, uploads = Turns(0), {}
        for role, file in files.items():
            uploads[role] = place(tmp_path, f"upload-of-{role}", file.name)
            uploads[role].path.write_bytes(file.read_bytes())
        try:
            return [line async for line in score(model.bundle, turns, uploads, Wish())]
        finally:
            turns.close()

    found = {}
    for source in find_sources(model.media):
        lines = asyncio.run(ask(source.files))
        (clip,) = [line["clip"] for line in lines if line["kind"] == "clip"]
        (window,) = [line for line in lines if line["kind"] == "window"]
        assert clip["whole"]
        assert window["whole"]
        assert window["probabilities"] == clip["probabilities"]
        found[source.key] = clip["probabilities"]
    check(found, model.scores)


@pytest.mark.parametrize("case", ["everything", pytest.param("stretched", marks=pytest.mark.slow)])
def test_embed_gives_the_features_that_the_probe_reads(
    case: str, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    model = trained(*CASES[case])
    stream = ClipStream(model.index, request_of(model.bundle), 4)
    (features,) = extract_features([model.bundle.backbone], model.bundle.spec, stream)
    for number, source in enumerate((model.media, model.index.folder)):
        out = tmp_path / f"{number}.npz"
        command = ["embed", str(model.folder), str(source), str(out), "--workers", "0", "--modality-features"]
        assert main(command) == 0
        arrays = np.load(out)
        keys = [Path(key).stem for key in arrays["key"].tolist()]
        assert sorted(keys) == sorted(features.keys)
        rows = [features.keys.index(key) for key in keys]
        np.testing.assert_allclose(arrays["features"], features.values["fused"][rows], atol=TOLERANCE)
        np.testing.assert_allclose(arrays["weights"], features.weights[rows], atol=TOLERANCE)
        for column, name in enumerate(features.modalities):
            assert (arrays["present"][:, column] == features.present[name][rows]).all()
            np.testing.assert_allclose(arrays[f"features.{name}"], features.values[name][rows], atol=TOLERANCE)


def test_detect_scores_short_recordings_as_clips_with_the_model_threshold(
    trained: Callable[..., Trained], tmp_path: Path
) -> None:
    model = trained(*CASES["stretched"], threshold=0.625)
    spans = tmp_path / "spans.csv"
    spans.write_text("video,start,end\nc1,0,1\nc3,0,1\n")
    figures = tmp_path / "figures.json"
    assert main(["detect", str(model.folder), str(model.media), "--spans", str(spans), "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    scores = {Path(name).stem: entry["windows"][2] for name, entry in found["videos"].items()}
    assert all(len(values) == 1 for values in scores.values())
    check({key: {"fight": values[0]} for key, values in scores.items()}, _positive(model.scores))
    assert found["tables"][1]["rows"][0][1] == 0.625


def _positive(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {key: {"fight": held["fight"]} for key, held in scores.items()}


def test_clip_raises_an_alarm_if_its_evaluated_score_reaches_the_threshold(
    trained: Callable[..., Trained], tmp_path: Path
) -> None:
    """A single window must not raise an alarm: stretched models once gave such false alarms."""
    model = trained(*CASES["stretched"])
    predicted(model.folder, model.media, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    alarms = {Path(line["file"]).stem for line in lines if line["kind"] == "alarm"}
    assert alarms == {key for key, scores in model.scores.items() if scores["fight"] >= 0.5}


def test_shards_of_another_packing_are_rejected(
    trained: Callable[..., Trained], packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(*CASES["one view"])
    assert main(["predict", str(model.folder), str(packed), "--out", str(tmp_path / "lines.jsonl")]) == 2
    assert "pack the source again" in capsys.readouterr().err


def settings_for(name: str, shards: Path, out: Path) -> list[str]:
    """Settings of a shipped config on the corpus, for two steps."""
    config: Any = partial_config(name)
    kept = [modality for modality in config.data.modalities if modality in load_index(shards).modalities]
    kept = kept or list(load_index(shards).modalities)
    settings = [f"data.shards={shards}", f"data.modalities=[{','.join(kept)}]", f"out={out}", "name=run"]
    settings += ["data.batch_size=4", "data.workers=0", "wandb=disabled", "train.steps=2"]
    settings += ["positive=contact"] if config.get("positive") else []
    settings += ["data.label=label"] if config.data.label else []
    return settings + (["data.folds=2", "data.fold=0"] if config.data.folds else [])


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["data.stretch=0.6", "data.modalities=[rgb,flow]"]])
@pytest.mark.parametrize("name", [name for name, kind, _ in list_configs() if kind != "study"])
def test_every_shipped_config_predicts_as_evaluated(name: str, more: list[str], corpus: Path, tmp_path: Path) -> None:
    kind = next(kind for shipped, kind, _ in list_configs() if shipped == name)
    if more and partial_config(name).data.modalities == ["audio"]:
        pytest.skip("sound is not stretched")
    if more and "offset" in (partial_config(name).get("tasks") or {}):  # pyright: ignore[reportAttributeAccessIssue]
        # It predicts seconds, which stretched windows do not have.
        more = [*more, "tasks.offset=null"]
    assert main([kind, name, *settings_for(name, corpus / "shards", tmp_path), *more]) == 0
    run = next(path.parent for path in sorted((tmp_path / "run").rglob("encoder")))
    index = load_index(corpus / "shards")
    bundle = load_bundle(run / "encoder")
    if kind == "finetune":
        scores, _, classes = load_scores(tmp_path / "run" / "results" / "scores.safetensors")
        expected = {key: dict(zip(classes, row.tolist(), strict=True)) for key, row in _rows(scores)}
        for source in (corpus / "world", corpus / "shards"):
            told = predicted(run, source, tmp_path)
            check({key: told[key]["probabilities"] for key in expected}, expected)
        return
    (features,) = extract_features([bundle.backbone], bundle.spec, ClipStream(index, request_of(bundle), 4))
    for number, source in enumerate((corpus / "world", corpus / "shards")):
        out = tmp_path / f"{number}.npz"
        assert main(["embed", str(run), str(source), str(out), "--workers", "0"]) == 0
        arrays = np.load(out)
        rows = [features.keys.index(Path(key).stem) for key in arrays["key"].tolist()]
        assert len(rows) == len(features.keys)
        np.testing.assert_allclose(arrays["features"], features.values["fused"][rows], atol=TOLERANCE)
