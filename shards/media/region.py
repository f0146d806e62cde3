"""The part of a picture to use, such as a door, a face or a crossing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Left, top, width and height as shares of the upright picture.
Region = tuple[float, float, float, float]


def plain_region(content: Sequence[float] | None) -> Region | None:
    """Returns a region from its JSON form."""
    if content is None:
        return None
    left, top, width, height = content
    return (float(left), float(top), float(width), float(height))


def region_text(region: Sequence[float]) -> str:
    """Returns a region in the form that `--region` takes.

    >>> region_text((0.25, 0.5, 0.5, 0.5))
    '0.25,0.5,0.5,0.5'
    """
    return ",".join(f"{share:g}" for share in region)


def cut_region(picture: "NDArray[Any]", region: Region) -> "NDArray[Any]":
    """Returns the region (h, w, ...) of a picture (H, W, ...).

    Its sides are even, as video needs them, and at least 2 pixels.
    """
    height, width = picture.shape[:2]
    left, top, wide, high = region
    across, down = (
        max(2, min(round(share * side / 2), side // 2) * 2) for share, side in ((wide, width), (high, height))
    )
    x, y = min(round(left * width), width - across), min(round(top * height), height - down)
    return picture[y : y + down, x : x + across]
