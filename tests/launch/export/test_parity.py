"""Real clips as rows of a graph: modalities, labels, and comparison of outputs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle
from modalgate.fusion.bundle.graph import GraphModel
from modalgate.launch.export.parity import clip_windows, noise_windows, worst_difference
from modalgate.launch.export.runtime import Arrays
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Five clips of one second; odd ones have sound; labels by number."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    lines = ["video,label"]
    for number in range(5):
        pictures = generator.integers(0, 255, (10, 32, 32, 3)).astype(np.uint8)
        sound = (generator.standard_normal(8000) * 0.1).astype(np.float32) if number % 2 else None
        write_video(folder / f"c{number}.mkv", pictures, 10, sound=sound, sample_rate=8000)
        lines.append(f"c{number}.mkv,{'fight' if number < 2 else 'calm'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    out = folder / "packed"
    pack(folder, out, PackSettings(modalities=("rgb", "audio"), size=32, fps=10.0, sample_rate=8000), workers=1)
    return load_index(out)


@pytest.fixture
def bundle(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> Bundle:
    return Bundle(tiny_backbone(("rgb", "depth", "audio")).eval(), tiny_clip, 2)


def as_runner(bundle: Bundle, error: float = 0.0) -> Callable[[Arrays], list[np.ndarray]]:
    graph = GraphModel(bundle)

    def run(inputs: Arrays) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = graph(*(torch.from_numpy(array) for array in inputs.values()))
        return [output.numpy() + error for output in outputs]

    return run


def test_clips_become_rows_with_their_modalities(bundle: Bundle, index: Index) -> None:
    (windows,) = clip_windows(bundle, index, "label")
    order = [sample.key for sample in index.samples]
    assert windows.present.tolist() == [[True, False, int(key[1]) % 2 == 1] for key in order]
    assert windows.labels == ["fight" if int(key[1]) < 2 else "calm" for key in order]
    assert windows.streams["rgb"].shape == (5, 2, 3, 32, 32)
    # No clip has depth: its place is filled, and off.
    assert windows.streams["depth"].shape == (5, 2, 1, 32, 32)
    assert windows.streams["depth"].dtype is torch.uint16
    assert sum(len(batch.present) for batch in clip_windows(bundle, index, limit=2)) == 2


def test_graph_and_model_agree_on_clips_and_errors_are_detected(bundle: Bundle, index: Index) -> None:
    assert worst_difference(bundle, as_runner(bundle), clip_windows(bundle, index)) < 1e-4
    assert worst_difference(bundle, as_runner(bundle, 0.02), clip_windows(bundle, index)) == pytest.approx(0.02, 0.05)
    assert worst_difference(bundle, as_runner(bundle, float("nan")), noise_windows(bundle)) == float("inf")


def test_shards_of_another_kind_are_rejected(bundle: Bundle, index: Index) -> None:
    bundle.spec = ClipSpec(**(vars(bundle.spec) | {"fps": 12.0}))
    with pytest.raises(RequestError, match="packed with frames per second 10"):
        next(clip_windows(bundle, index))
