"""Find similar recordings by their features: python examples/features_of_a_folder.py ENCODER FOLDER.

ENCODER: a bundle, a run folder or hf://OWNER/NAME. FOLDER: media files, at any depth.
Prints the nearest other recording of each one, by the cosine of their mean features.
"""

import sys

import modalgate
import numpy as np


def main(encoder: str, folder: str) -> None:
    # One row per recording: the mean of its features, scaled to length one.
    found = modalgate.embed(encoder, folder)
    names = list(found.recordings)
    rows = np.stack([recording.features.mean(axis=0) for recording in found.recordings.values()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T

    # A recording is not its own neighbour.
    np.fill_diagonal(cosines, -np.inf)
    for name, nearest, cosine in zip(names, cosines.argmax(axis=1), cosines.max(axis=1), strict=True):
        print(f"{name}: nearest {names[nearest]}, cosine {cosine:.3f}")
    for name, reason in found.rejected.items():
        print(f"{name}: skipped, {reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
