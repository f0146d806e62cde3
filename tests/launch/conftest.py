"""Run folders of tiny random models, as training leaves them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle import Bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.shards.transforms import ClipSpec
from modalgate.tasks.results import Table, new_result, save_result


@pytest.fixture
def trained_run(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path) -> Path:
    """A finished fine-tuning of rgb and audio, with its model and its record, but no checkpoint."""
    run = tmp_path / "runs" / "violence"
    classifier = Classifier(tiny_backbone(), ["calm", "fight"]).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_bundle(Bundle(classifier, tiny_clip, 3, "violence", "fight", {"data": "market: 9 clips"}), run / "encoder")
    table = Table("Test clips", ["metric", "value"], [["auc", 0.75]], "40 clips")
    save_result(new_result("finetune", "Fine-tuning", "", [table], []), run)
    return run
