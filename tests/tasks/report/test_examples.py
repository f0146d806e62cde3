"""Example clips: the most confident of every class in turn, and those with the lowest probability of the true one."""

from pathlib import Path

import numpy as np
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.tasks.evaluation.scores import Scores
from modalgate.tasks.report.examples import choose_examples, draw_examples
from PIL import Image


def scores_of(own: list[float], labels: list[int], keys: list[str] | None = None) -> Scores:
    """Scores of two classes. `own` is the probability of each clip's true class."""
    probabilities = np.array([[p, 1 - p] if label == 0 else [1 - p, p] for p, label in zip(own, labels, strict=True)])
    names = keys or [f"clip-{number}" for number in range(len(own))]
    return Scores(probabilities.astype(np.float32), np.full((len(own), 1), 1, np.float32), np.array(labels), names)


def test_most_confident_in_turn_and_worst_errors() -> None:
    own = [0.9, 0.99, 0.95, 0.6, 0.7, 0.2, 0.05, 0.4, 0.45]
    labels = [0, 0, 0, 1, 1, 0, 1, 0, 1]
    right, wrong = choose_examples(scores_of(own, labels), each=4)
    assert right == [1, 4, 2, 3]
    assert wrong == [6, 5, 7, 8]
    assert choose_examples(scores_of([0.9, 0.8], [0, 0])) == ([0, 1], [])
    assert choose_examples(scores_of([0.1], [1])) == ([], [0])


def test_with_several_classes_all_decisions_must_be_correct() -> None:
    labels = np.array([[1, 1], [1, 0], [0, 0], [1, 1], [0, 1]])
    chances = np.array([[0.9, 0.7], [0.8, 0.4], [0.1, 0.05], [0.95, 0.9], [0.6, 0.99]], np.float32)
    scores = Scores(chances, np.ones((5, 1), np.float32), labels, list("abcde"))
    # Sets of classes take turns: none, the first, both. The last clip is predicted one class too many.
    assert choose_examples(scores, each=4) == ([2, 1, 3, 0], [4])


def test_pictures_show_their_clips(tmp_path: Path) -> None:
    colours = {"red": (230, 20, 20), "blue": (20, 20, 230)}
    (tmp_path / "in").mkdir()
    for name, colour in colours.items():
        frames = np.broadcast_to(np.array(colour, np.uint8), (12, 32, 32, 3)).copy()
        write_video(tmp_path / "in" / f"{name}.mp4", frames, 10)
    index = pack(
        tmp_path / "in", tmp_path / "shards", PackSettings(modalities=("rgb",), size=32, fps=10.0), workers=1
    )
    keys = [sample.key for sample in index.samples]
    scores = scores_of([0.9, 0.2], [0, 1], keys)
    found = draw_examples(scores, index, ["calm", "fight"], ["rgb"], tmp_path / "results")
    assert [(clip.key, clip.verdict, clip.truth, clip.guess) for clip in found.clips] == [
        (keys[0], "right", "calm", "calm"),
        (keys[1], "wrong", "fight", "calm"),
    ]
    assert found.clips[1].probability == np.float32(0.8)
    assert found.clips[0].weights == {"rgb": 1.0}
    for clip in found.clips:
        picture = np.asarray(Image.open(tmp_path / "results" / clip.picture).convert("RGB")).astype(int)
        middle = picture[picture.shape[0] // 2, picture.shape[1] // 4 :: 7]
        colour = colours[next(name for name in colours if name in clip.key)]
        assert (np.abs(middle - colour).max(axis=1) < 25).mean() > 0.8
        assert picture.shape[1] > 500
