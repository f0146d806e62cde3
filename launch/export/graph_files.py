"""The files beside an exported graph."""

from pathlib import Path


def card_path(graph: Path) -> Path:
    """The model card of a graph: FILE.md beside FILE."""
    return graph.with_name(f"{graph.name}.md")


def int8_path(graph: Path) -> Path:
    """The quantised twin of a graph."""
    return graph.with_name(f"{graph.stem}-int8{graph.suffix}")
