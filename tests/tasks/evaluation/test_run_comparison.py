"""Comparison of runs: planted gains are found, equal runs do not differ, and different data raise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.tasks.evaluation.run_comparison import compare, duels, load_contenders
from modalgate.tasks.evaluation.scores import Scores, save_scores
from modalgate.tasks.metrics.classification import roc_auc
from modalgate.tasks.metrics.significance import holm
from modalgate.tasks.report.page import write_report
from modalgate.tasks.robustness.conditions import SWEEP, Condition, Sweep, save_sweep
from modalgate.tasks.robustness.corruptions import AXES
from scipy.stats import binomtest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(name, right, ...)`: a run that classifies clips correctly where `right` is true.

    A group has `size` clips.
    """

    def build(
        name: str,
        right: np.ndarray,
        classes: int = 2,
        keys: list[str] | None = None,
        turn: int = 0,
        size: int = 2,
    ) -> Path:
        labels = np.arange(len(right)) % classes
        guess = np.where(right, labels, (labels + 1) % classes)
        probabilities = np.full((len(right), classes), 0.2 / (classes - 1), np.float32)
        probabilities[np.arange(len(right)), guess] = 0.8
        names = keys or [f"clip{number:03d}" for number in range(len(right))]
        units = [f"group{number // size}" for number in range(len(right))]
        # Runs with other folds store their clips in another order.
        order = np.roll(np.arange(len(right)), turn)
        scores = Scores(
            probabilities[order],
            np.ones((len(right), 1), np.float32),
            labels[order],
            [names[number] for number in order],
        )
        run = tmp_path / name
        save_scores(
            scores,
            [units[number] for number in order],
            [f"class{number}" for number in range(classes)],
            run / "results" / "scores.safetensors",
        )
        (run / "config.yaml").write_text("kind: finetune\n", encoding="utf-8")
        return run

    return build


def answers(count: int, wrong: int) -> np.ndarray:
    right = np.ones(count, bool)
    right[:wrong] = False
    return right


def test_a_planted_gain_is_found_in_any_order_of_clips(write: Write) -> None:
    worse, better = write("worse", answers(200, 60)), write("better", answers(200, 20), turn=37)
    found, result = compare([worse, better], draws=200)
    (duel,) = found
    assert (duel.first, duel.second) == ("worse", "better")
    assert duel.accuracy.value == pytest.approx(0.2)
    assert 0.1 < duel.accuracy.low < 0.2 < duel.accuracy.high < 0.3
    # Twenty of the hundred groups of two clips differ, all in favour of one run.
    assert duel.p == duel.adjusted == pytest.approx(2 / 2**20)
    assert duel.auc is not None
    assert duel.auc.value == pytest.approx(0.2)
    assert result.tables[0].rows[0][:2] == ["worse", pytest.approx(0.7)]


def test_runs_with_equal_error_rates_do_not_differ(write: Write) -> None:
    # Each run errs on forty other clips: many discordant clips, but no difference.
    runs = [write(f"run{number}", np.roll(answers(200, 40), 40 * number)) for number in range(3)]
    found = duels(load_contenders(runs), draws=200)
    assert [(duel.first, duel.second) for duel in found] == [("run0", "run1"), ("run0", "run2"), ("run1", "run2")]
    for duel in found:
        assert (duel.accuracy.value, duel.p, duel.adjusted) == (0, 1, 1)
        assert duel.accuracy.low < 0 < duel.accuracy.high


def test_p_values_are_adjusted_for_the_number_of_pairs(write: Write) -> None:
    planted = {"a": 20, "b": 28, "c": 33}
    runs = [write(name, answers(200, wrong), size=1) for name, wrong in planted.items()]
    raw = [binomtest(0, count).pvalue for count in (8, 13, 5)]
    found = duels(load_contenders(runs), draws=200)
    assert [duel.p for duel in found] == pytest.approx(raw)
    assert [duel.adjusted for duel in found] == pytest.approx([2 * raw[0], 3 * raw[1], raw[2]])
    areas = [duel.auc.p for duel in found if duel.auc is not None]
    assert [duel.auc_adjusted for duel in found] == holm(areas).tolist()
    _, result = compare(runs, draws=200)
    for table in result.tables[1:]:
        assert table.columns[-2:] == ["p", "Holm"]
        assert [row[-1] for row in table.rows] == pytest.approx(holm([row[-2] for row in table.rows]).tolist())  # pyright: ignore
    assert "McNemar" in result.tables[1].note
    assert "paired bootstrap over groups" in result.tables[2].note


def test_few_groups_are_tested_by_sign_flips(write: Write) -> None:
    """Four groups agree in favour of one run: McNemar would give 2 / 2^40, the flips of four groups 2 / 2^4."""
    first = np.arange(120) % 30 >= 20
    runs = [write("worse", first, size=30), write("better", first | (np.arange(120) % 30 >= 10), size=30)]
    (duel,), result = compare(runs, draws=200)
    assert duel.p == duel.adjusted == pytest.approx(2 / 2**4)
    assert duel.auc is not None
    assert duel.auc.p == duel.auc_adjusted == pytest.approx(2 / 2**4)
    for table in result.tables[1:]:
        assert "sign flips over the 4 groups" in table.note
        assert "of four groups about 83 %" in table.note
        assert "no p is below 0.125" in table.note


def test_auc_is_a_mean_over_folds(tmp_path: Path) -> None:
    """Both folds rank their clips perfectly. One scores all its clips higher, so a pooled AUC is below one."""
    runs = []
    labels = np.tile([0, 1], 20)
    fold = np.arange(40) // 20
    for name, offset in (("aligned", 0.0), ("shifted", 0.5)):
        scores = 0.1 + 0.2 * labels + offset * fold
        rows = np.stack([1 - scores, scores], axis=1).astype(np.float32)
        keys = [f"clip{number:03d}" for number in range(40)]
        names = [f"fold-{number}" for number in fold]
        runs.append(tmp_path / name)
        stored = Scores(rows, np.ones((40, 1), np.float32), labels, keys, names)
        save_scores(stored, keys, ["calm", "fight"], runs[-1] / "results" / "scores.safetensors")
    (duel,), result = compare(runs, draws=200)
    assert roc_auc(0.1 + 0.2 * labels + 0.5 * fold, labels) == pytest.approx(0.75)
    assert [row[-2:] for row in result.tables[0].rows] == [[1, 0.5], [1, 0.5]]
    assert duel.auc is not None
    assert (duel.auc.value, duel.auc.low, duel.auc.high, duel.auc.p) == (0, 0, 0, 1)
    assert "mean over 2 folds" in result.tables[0].note


def test_three_classes_have_no_auc_and_equal_names_become_paths(write: Write) -> None:
    runs = [write("a/same", answers(30, 3), classes=3), write("b/same", answers(30, 6), classes=3)]
    found, result = compare(runs, draws=200)
    assert found[0].auc is None
    assert result.tables[0].rows[0][-2:] == [None, None]
    assert [row[0] for row in result.tables[0].rows] == [str(run) for run in runs]


def test_runs_on_different_data_raise(write: Write, tmp_path: Path) -> None:
    run = write("one", answers(20, 3))
    with pytest.raises(RequestError, match="at least two runs"):
        compare([run])
    other = write("shifted", answers(20, 3), keys=[f"clip{number:03d}" for number in range(5, 25)])
    with pytest.raises(RequestError, match="10 test clips are in only one of 'one' and 'shifted'"):
        compare([run, other])
    with pytest.raises(RequestError, match="the same classes"):
        compare([run, write("three", answers(20, 3), classes=3)])
    with pytest.raises(RequestError, match="no scores of test clips"):
        compare([run, tmp_path])


def test_the_report_shows_the_comparison_before_the_runs(write: Write, tmp_path: Path) -> None:
    runs = [write("worse", answers(60, 30)), write("better", answers(60, 5))]
    write_report(runs, tmp_path / "page.html", [compare(runs, "modalgate compare worse <better>", draws=200)[1]])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.index("Comparison of runs") < page.index('<article id="run-1">')
    assert "better - worse" in page
    assert "modalgate compare worse &lt;better&gt;" in page


def swept(run: Path, right: dict[float, int], seed: int = 0, count: int = 60, size: int = 2) -> Path:
    """A run with a blur sweep. `right` gives the number of correct clips per level."""
    labels = np.arange(count) % 2
    rows = []
    for number in right.values():
        guess = np.where(np.arange(count) < number, labels, 1 - labels)
        rows.append(np.where(np.arange(2) == guess[:, None], 0.8, 0.2))
    conditions = [Condition("blur", "rgb", level) for level in right]
    everywhere = np.ones((len(rows), count))
    sweep = Sweep(
        ["class0", "class1"],
        ["rgb"],
        conditions,
        np.array(rows, np.float32),
        everywhere[..., None].astype(np.float32),
        everywhere.astype(bool),
        np.ones((count, 1), bool),
        labels,
        [f"clip{number:03d}" for number in range(count)],
        seed,
    )
    save_sweep(sweep, [f"group{number // size}" for number in range(count)], run / "results" / SWEEP)
    return run


def test_areas_are_compared_if_all_runs_have_sweeps(write: Write) -> None:
    levels = AXES["blur"].levels
    frail, sturdy = write("frail", answers(60, 6)), write("sturdy", answers(60, 6))
    swept(frail, dict(zip(levels, (54, 48, 36, 30, 24), strict=True)))
    assert len(compare([frail, sturdy], draws=50)[1].tables) == 3
    swept(sturdy, dict(zip(levels, (54, 54, 48, 42, 30), strict=True)))
    _, result = compare([frail, sturdy], draws=300)
    table = result.tables[-1]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["pair"], row["corrupted"], row["by"]) == ("sturdy - frail", "rgb", "Gaussian blur")
    gains = np.array([0, 6, 12, 12, 6]) / 60
    gain = (gains[1:] + gains[:-1]).mean() / 2
    assert row["gain"] == pytest.approx(gain)
    assert row["second"] - row["first"] == pytest.approx(gain)  # pyright: ignore
    assert 0 < row["low"] < gain < row["high"]  # pyright: ignore
    assert row["p"] == row["Holm"] < 0.05  # pyright: ignore
    (figure,) = result.figures
    assert figure.series["frail"] == pytest.approx([0.9, 0.8, 0.6, 0.5, 0.4])  # pyright: ignore
    assert set(figure.bands) == {"frail", "sturdy"}  # pyright: ignore


def test_areas_of_few_groups_are_tested_by_sign_flips(write: Write) -> None:
    levels = AXES["blur"].levels
    frail, sturdy = (write(name, answers(60, 6), size=20) for name in ("frail", "sturdy"))
    swept(frail, dict(zip(levels, (54, 48, 36, 30, 24), strict=True)), size=20)
    swept(sturdy, dict(zip(levels, (54, 54, 48, 42, 42), strict=True)), size=20)
    table = compare([frail, sturdy], draws=50)[1].tables[-1]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    # Two of three groups gain, the first one has nothing to gain: four of eight flips reach the difference.
    assert row["p"] == row["Holm"] == 0.5
    assert "sign flips over the 3 groups" in table.note


def test_sweeps_with_different_seeds_raise(write: Write) -> None:
    runs = [write(name, answers(60, 6)) for name in ("one", "two")]
    for seed, run in enumerate(runs):
        swept(run, dict.fromkeys(AXES["blur"].levels, 40), seed)
    with pytest.raises(RequestError, match="another --seed"):
        compare(runs, draws=20)
