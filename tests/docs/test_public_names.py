"""The public names: each can be imported, and the packages themselves import no torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOORS = {"modalgate": ROOT, **{f"modalgate.{room}": ROOT / room for room in ("shards", "fusion", "tasks", "launch")}}
PROMISED = {
    "modalgate": "pack pretrain finetune probe predict embed export robustness compare detect study report "
    "load_encoder load_bundle PRETEXT_TASKS build_pretext_task PretextTask PretextObjective __version__",
    "modalgate.shards": "load_index Index pack PackSettings ClipStream ClipRequest ClipSpec Preparation "
    "AugmentConfig Batch Modality declare verify slide",
    "modalgate.fusion": "Backbone BackboneSpec EncoderSpec Classifier Fusion Fused FUSIONS ENCODERS build_fusion "
    "build_encoder Bundle save_bundle load_bundle load_encoder",
    "modalgate.tasks": "fit_linear_probe knn knn_scores retrieval class_retrieval cross_modal_retrieval mcnemar holm "
    "paired_bootstrap grouped_folds SupervisedObjective roc_auc average_precision",
    "modalgate.launch": "train load_config",
}
# Short names of functions that have a longer one too.
ALIASES = {"modalgate.tasks.knn": "knn_scores", "modalgate.tasks.retrieval": "class_retrieval"}
READ_ALL = """
import importlib, json, sys
found = {}
for door, names in json.loads(sys.argv[1]).items():
    package = importlib.import_module(door)
    for name in names:
        found[f"{door}.{name}"] = getattr(getattr(package, name), "__name__", "")
print(json.dumps(found))
"""
HEAVY = """
import importlib, sys
importlib.import_module(sys.argv[1])
print([name for name in ("torch", "timm", "numpy") if name in sys.modules])
"""


def fresh(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def handed_out(folder: Path) -> set[str]:
    tree = ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8"))
    return {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_name_can_be_imported() -> None:
    names = {door: sorted({*handed_out(folder), *PROMISED[door].split()}) for door, folder in DOORS.items()}
    found = json.loads(fresh(READ_ALL, json.dumps(names)))
    assert set(found) == {f"{door}.{name}" for door, given in names.items() for name in given}
    classes_and_functions = {name: value for name, value in found.items() if value}
    assert all(
        value.split(".")[-1] == ALIASES.get(name, name.split(".")[-1])
        for name, value in classes_and_functions.items()
    )


@pytest.mark.parametrize("door", [*DOORS, "modalgate.ssl"])
def test_package_does_not_import_torch(door: str) -> None:
    assert fresh(HEAVY, door).strip() == "[]"


def test_the_version_is_read_without_an_import() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__version__"]
    assert [isinstance(value, ast.Constant) for value in values] == [True]
