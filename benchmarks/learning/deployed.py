"""Difference between `predict` and the evaluation of the same clips: from files, from shards, and in pieces.

    .venv/bin/python benchmarks/learning/deployed.py MODEL SHARDS MEDIA [--clips 30]

MODEL: a classifier's bundle or run folder; SHARDS: labelled clips; MEDIA: the folder that they were packed from.
The last figure is that of a long film, whose pictures have not passed through the packing's codec.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.jobs.building import application_of, check_shards_fit, request_of
from modalgate.launch.runs.bundles import find_bundle
from modalgate.shards.clips.piece import Piece
from modalgate.shards.index.table import Sample, load_index
from modalgate.shards.live.inputs import Item, find_material
from modalgate.shards.live.pieces import recording_pieces
from modalgate.shards.live.sliding import slide
from modalgate.shards.packing.sources import find_sources
from modalgate.shards.stream import ClipStream
from modalgate.tasks.evaluation.scores import score_clips
from modalgate.tasks.prediction.torch_scorer import EagerScorer
from modalgate.tasks.prediction.window_scores import predict_pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "shards", "media"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--views", type=int, help="instead of the model's own")
    parser.add_argument("--label", default="label")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundle, index = load_bundle(find_bundle(arguments.model)), load_index(arguments.shards)
    check_shards_fit(bundle, index)
    assert isinstance(bundle.model, Classifier), "the model needs classes"
    request = request_of(bundle, arguments.views)
    application = bundle.application if bundle.application.longest else application_of(request, index)
    bundle.application = replace(application, views=request.segments)
    bundle.spec = replace(bundle.spec, packing=bundle.spec.packing or index.settings)
    files = {source.key: source for source in find_sources(arguments.media)}
    known = [sample for sample in index.samples if sample.key in files]
    known = [sample for sample in known if sample.labels.get(arguments.label) in bundle.model.classes]
    places = np.linspace(0, len(known) - 1, min(arguments.clips, len(known))).round().astype(int)
    index = index.keep(known[number].key for number in places)
    stream = ClipStream(index, request, 4, label=arguments.label, classes=bundle.model.classes)
    evaluated = score_clips(bundle.model, bundle.spec, stream)
    expected = dict(zip(evaluated.keys, evaluated.probabilities, strict=True))
    scorer = EagerScorer(bundle)
    spec, names, application = scorer.spec, scorer.modalities, scorer.application
    cut = find_material(str(arguments.shards)).cutter(spec, names, application, None)

    def from_file(sample: Sample) -> Iterator[Piece]:
        source = files[sample.key]
        return recording_pieces(source.files, spec, names, application, rates=source.rates)

    def sliding(sample: Sample) -> Iterator[Piece]:
        source, one = files[sample.key], replace(application, piece=sample.duration, hop=sample.duration)
        return slide(source.files, spec, names, one, rates=source.rates)

    ways: dict[str, Callable[[Sample], Iterator[Piece]]] = {
        "from its file": from_file,
        "from the shards": lambda sample: cut(Item(sample.key, sample, [], [])),
        "in pieces, as a long film": sliding,
    }
    print(f"{len(index.samples)} clips, {application.views} views; largest difference of a probability")
    for name, way in ways.items():
        differences = []
        for sample in index.samples:
            (found,) = predict_pieces(scorer, way(sample))
            differences.append(
                float(np.abs(np.array(list(found.probabilities.values())) - expected[sample.key]).max())
            )
        print(f"{name:28} mean {np.mean(differences):.2g}, largest {max(differences):.2g}")


if __name__ == "__main__":
    main()
