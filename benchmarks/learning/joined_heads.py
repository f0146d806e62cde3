"""How much a reliability gate gains over rules without one, on the heads of one fine-tuned model.

    python benchmarks/learning/joined_heads.py RUN SHARDS --split test

RUN is a fine-tuning with `decision=reliability` by a given split. Prints the accuracy of the gate, of the product of
the same heads with and without their temperatures, and of their mean, on the clips of the split; and the difference
to the gate with its 95 % interval by bootstrap over clips and McNemar's exact p value.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.reliability import ReliabilityGate
from modalgate.shards.index.table import load_index
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.tasks.finetuning.reliability_fitting import Evidence
from modalgate.tasks.finetuning.unseen_evidence import unseen_evidence
from modalgate.tasks.metrics.significance import mcnemar
from numpy.typing import NDArray

DRAWS = 4000


@torch.no_grad()
def right(gate: ReliabilityGate, evidence: Evidence) -> NDArray[np.bool_]:
    """Which clips (n,) a gate classifies correctly, with probabilities averaged over views."""
    places = range(len(gate.modalities))
    logits = {gate.modalities[m]: evidence.logits[:, :, m] for m in places}
    present = {gate.modalities[m]: evidence.present[:, :, m] for m in places}
    chances = gate(logits, present, evidence.quality).embedding.softmax(dim=-1).mean(dim=1)
    return (chances.argmax(dim=-1) == evidence.label).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--label", default="label")
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_bundle(given.run / "encoder")
    model, spec = bundle.model, bundle.spec
    if not (isinstance(model, Classifier) and isinstance(model.decision, ReliabilityGate)):
        raise SystemExit(f"'{given.run}' is not a fine-tuning with decision=reliability")
    gate, names, classes = model.decision, model.backbone.modalities, list(model.classes)
    index = load_index(given.shards).where(split=given.split)
    request = ClipRequest(names, bundle.segments, spec.seconds, spec.frames, spec.size, spec.stretch)
    stream = ClipStream(index, request, 32, label=given.label, classes=classes)
    keys = {sample.key: sample.key for sample in index.samples}
    (evidence,) = unseen_evidence([model], dict.fromkeys(keys, 0), spec, stream, keys, levels=())
    product, calibrated = ReliabilityGate(names, len(classes)), ReliabilityGate(names, len(classes))
    calibrated.set_temperatures(dict(zip(names, gate.temperature.tolist(), strict=True)))
    mean = ReliabilityGate(names, len(classes), mixture=True)
    joined = {"product": product, "calibrated product": calibrated, "mean": mean}
    reference = right(gate, evidence)
    print(f"reliability: {reference.mean():.4f} of {len(reference)} clips")
    generator = np.random.default_rng(0)
    for name, rule in joined.items():
        found = right(rule, evidence)
        gain = reference.astype(float) - found
        drawn = [gain[generator.integers(len(gain), size=len(gain))].mean() for _ in range(DRAWS)]
        low, high = np.percentile(drawn, [2.5, 97.5])
        p = mcnemar(reference, found)
        print(f"{name}: {found.mean():.4f}, gate {gain.mean():+.4f} ({low:.3f} to {high:.3f}), p {p:.2g}")


if __name__ == "__main__":
    main()
