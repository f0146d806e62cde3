"""Class names as parts of the keys of metrics and columns."""

import re
from collections.abc import Sequence


def class_identifiers(classes: Sequence[str]) -> list[str]:
    """A distinct identifier for every class name: `no fall` becomes `no_fall`.

    Runs of other characters than letters, digits and `_` become one `_`. A name that is an identifier already stays
    as it is. Where two names become the same one, the later gets a number; a name without any letter or digit is
    `class_N`, N its place from 0.
    """
    cleaned = [re.sub(r"\W+", "_", name).strip("_") or f"class_{place}" for place, name in enumerate(classes)]
    taken = {name for name, clean in zip(classes, cleaned, strict=True) if name == clean}
    found = []
    for name, clean in zip(classes, cleaned, strict=True):
        identifier, number = clean, 1
        while name != clean and identifier in taken:
            number += 1
            identifier = f"{clean}_{number}"
        taken.add(identifier)
        found.append(identifier)
    return found
