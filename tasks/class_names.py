"""Class names as valid identifiers, for metric keys and column names."""

import re
from collections.abc import Sequence


def class_identifiers(classes: Sequence[str]) -> list[str]:
    """Returns one distinct identifier per class name, in the order of `classes`.

    - Each run of characters other than letters, digits and `_` becomes one `_`.
    - A name that is already an identifier stays unchanged.
    - If two names become the same, the later one gets a number.
    - A name without letters or digits becomes `class_N`, where N is its position from 0.

    >>> class_identifiers(["fall", "no fall", "no-fall", "?"])
    ['fall', 'no_fall', 'no_fall_2', 'class_3']
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
