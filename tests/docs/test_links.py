"""Every relative link and anchor of the pages leads somewhere, and the site's navigation names every page."""

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


def prose(page: Path) -> str:
    """The page without its code blocks and code in lines."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    return re.sub(r"`[^`\n]*`", "", "\n".join(lines))


def github_slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def site_slug(title: str) -> str:
    """The anchor that the site gives a heading (Python-Markdown's)."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def anchors(page: Path) -> set[str]:
    """Anchors that lead to the same heading on GitHub and on the site, and those that a page sets itself."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    own = {found[1] for title in titles if (found := re.search(r"\{ #([\w-]+) \}$", title))}
    names = [re.sub(r"[`*]|\s*\{ #.*", "", title) for title in titles]
    return own | {github_slug(name) for name in names if github_slug(name) == site_slug(name)}


def links(page: Path) -> list[str]:
    return [
        target for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", prose(page)) if not re.match(r"[a-z]+:", target)
    ]


def test_links_and_anchors_resolve() -> None:
    broken = []
    for page in PAGES:
        for link in links(page):
            target, _, anchor = link.partition("#")
            path = (page.parent / target).resolve() if target else page
            name = page.relative_to(ROOT).as_posix()
            if not path.exists() or (anchor and anchor not in anchors(path)):
                broken.append(f"{name}: {link}")
            # The site holds docs/ alone.
            elif ROOT / "docs" in page.parents and ROOT / "docs" not in path.parents:
                broken.append(f"{name}: {link} leaves docs/")
    assert not broken


@pytest.mark.parametrize(
    ("title", "github", "site"),
    [
        ("What is left out", "what-is-left-out", "what-is-left-out"),
        ("GRID, one speaker: the digit", "grid-one-speaker-the-digit", "grid-one-speaker-the-digit"),
        ("ONNX - torch", "onnx---torch", "onnx-torch"),
    ],
)
def test_slugs(title: str, github: str, site: str) -> None:
    assert github_slug(title) == github
    assert site_slug(title) == site


def test_the_navigation_names_every_page() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def named(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in named(part)]  # pyright: ignore

    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(named(settings["nav"])) == sorted(there)


def test_folders_of_pages_hold_at_most_a_dozen_entries() -> None:
    folders = [
        path for top in ("docs", "benchmarks") for path in (ROOT / top, *(ROOT / top).rglob("*")) if path.is_dir()
    ]
    counts = {
        path.relative_to(ROOT).as_posix(): sum(not entry.name.startswith("__") for entry in path.iterdir())
        for path in folders
        if not path.name.startswith("__")
    }
    assert not {name: count for name, count in counts.items() if count > 12}
