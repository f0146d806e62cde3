"""The CSV of scores, read back with the csv module."""

import csv
from pathlib import Path

import numpy as np
import pytest
from modalgate.tasks.evaluation.score_table import write_score_table
from modalgate.tasks.evaluation.scores import Scores


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_holds_the_scores_exactly(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    chances = generator.dirichlet(np.ones(2), 50).astype(np.float32)
    weights = generator.dirichlet(np.ones(3), 50).astype(np.float32)
    chances[0] = 0.5
    scores = Scores(chances, weights, np.arange(50) % 2, [f'clip "{n}", left' for n in range(50)])
    folds, groups = [f"fold-{n % 5}" for n in range(50)], [f"room {n // 2}" for n in range(50)]
    path = tmp_path / "results" / "scores.csv"
    write_score_table(path, scores, folds, groups, ["no fall", "fall"], 1, ["rgb", "flow", "audio"])
    rows = rows_of(path)
    assert list(rows[0]) == [
        *("key", "split", "group", "label", "predicted"),
        *("probability_no_fall", "probability_fall", "weight_rgb", "weight_flow", "weight_audio"),
    ]
    assert [row["key"] for row in rows] == scores.keys
    assert [row["split"] for row in rows] == folds
    assert [row["group"] for row in rows] == groups
    assert [row["label"] for row in rows] == ["no fall", "fall"] * 25
    assert rows[0]["predicted"] == "fall"
    assert [row["predicted"] for row in rows[1:]] == [
        ["no fall", "fall"][number] for number in chances.argmax(axis=1)[1:]
    ]
    for name, column in (("probability_fall", chances[:, 1]), ("weight_audio", weights[:, 2])):
        np.testing.assert_array_equal(np.array([row[name] for row in rows], np.float32), column)
    assert [file.name for file in path.parent.iterdir()] == ["scores.csv"]


def test_several_classes_per_clip_are_joined(tmp_path: Path) -> None:
    chances, truth = np.array([[0.9, 0.5], [0.1, 0.2]], np.float32), np.array([[1, 0], [0, 0]])
    scores = Scores(chances, np.ones((2, 1), np.float32), truth, ["a", "b"])
    write_score_table(tmp_path / "s.csv", scores, ["t", "t"], ["", ""], ["fight", "shout"], None, ["rgb"])
    assert [(row["label"], row["predicted"]) for row in rows_of(tmp_path / "s.csv")] == [
        ("fight", "fight|shout"),
        ("|", "|"),
    ]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    scores = Scores(np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32), np.array([0, 1]), ["a", "b"])
    write_score_table(path, scores, ["t", "t"], ["", ""], ["no", "yes"], None, ["rgb"])
    before = path.read_bytes()
    with pytest.raises(IndexError):
        write_score_table(path, scores, ["t"], ["", ""], ["no", "yes"], None, ["rgb"])
    assert path.read_bytes() == before
