"""The closing figures of the demo, from planted rows."""

import numpy as np
from modalgate.launch.finetune.finetuning import Finetuned
from modalgate.launch.jobs.probing import Probed
from modalgate.launch.whole_way.demo_figures import Kept, closing_facts, closing_tables
from modalgate.shards.worlds.ceilings import ceilings
from modalgate.tasks.evaluation.scores import Scores
from modalgate.tasks.probes.probe_features import ProbeRow
from modalgate.tasks.records import new_result
from modalgate.tasks.robustness.breakage import KeptRow

FEATURES = ("fused", "concat", "rgb", "depth", "audio")
RESULT = new_result("x", "x", "", [], [])


def test_figures_show_the_ceilings_of_the_remaining_modalities() -> None:
    right = np.arange(20) < 15
    kept = Kept(
        [KeptRow(name, right, ~right) for name in FEATURES],
        {"rgb": 0.4, "depth": 0.3, "audio": 0.3},
        {"rgb": 0.1, "depth": 0.5, "audio": 0.4},
        {"demo-violence": (0.9, 0.8, 0.95), "demo-scratch": (0.6, 0.5, 0.7)},
    )
    # In the order that the probe has, which is another.
    rows = [ProbeRow(name, 0.75, 0.6, 0.9, 0.5, None, 20, 0.125) for name in sorted(FEATURES)]
    before = [ProbeRow(name, 0.25, 0.1, 0.4, 0.5, None, 20, 0.125) for name in sorted(FEATURES)]
    scores = Scores(np.zeros((20, 2), np.float32), np.zeros((20, 3), np.float32), np.zeros(20, np.int64), ["k"] * 20)
    classifiers = {
        run: Finetuned(
            {"auc": auc, "accuracy": 0.5}, {"auc": (auc - 0.1, auc), "accuracy": (0.4, 0.6)}, {}, scores, RESULT
        )
        for run, auc in (("demo-violence", 0.98), ("demo-scratch", 0.7))
    }
    known = ceilings("melee", flow="derived", streams=("rgb", "depth", "audio"))
    facts = closing_facts(known, Probed(rows, before, RESULT, {}, "label"), classifiers, kept, "rgb")
    found = {row["feature"]: row for row in facts["probe"]}
    assert list(found) == list(FEATURES)
    assert {name: row["ceiling"] for name, row in found.items()} == {
        "fused": 1.0,
        "concat": 1.0,
        "rgb": 0.5,
        "depth": 0.5,
        "audio": 0.5,
    }
    # Depth and sound see all that the picture saw.
    assert (found["fused"]["broken_ceiling"], found["rgb"]["broken_ceiling"]) == (1.0, None)
    assert (found["depth"]["probe"], found["depth"]["untrained"], found["depth"]["broken"]) == (0.75, 0.25, 0.25)
    assert (found["rgb"]["gate"], found["rgb"]["gate_broken"]) == (0.4, 0.1)
    assert found["fused"]["gate"] is None
    assert facts["violence"]["demo-violence"]["broken_interval"] == [0.8, 0.95]
    probes, violence = closing_tables(facts, 64, {"demo-violence": "pretrained", "demo-scratch": "scratch"})
    assert "64 labels, 20 held-out clips" in probes.title
    assert probes.rows[2][-1] == "0.40 to 0.10"
    assert probes.rows[0][-1] == "-"
    assert violence.rows[1] == ["scratch", "0.500 [0.400, 0.600]", "0.700 [0.600, 0.700]", "0.600 [0.500, 0.700]"]
