"""The report: complete, escaped, one file, readable on a phone."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from modalgate.shards.errors import DataError, RequestError
from modalgate.tasks.records import (
    Confusion,
    Curves,
    Example,
    Examples,
    Gates,
    LevelCurves,
    Table,
    Timeline,
    new_result,
    save_result,
)
from modalgate.tasks.report.page import format_cell, read_curves, write_report
from PIL import Image

from ...browser import DESKTOP, PHONE, Browser

HOSTILE = "<script>document.title='pwned'</script>"


def _run(folder: Path, steps: int = 40) -> Path:
    """A run folder as written by training and two evaluations."""
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"kind: pretrain\ncommand: [modalgate, pretrain, demo, 'name=a b']\nnote: \"{HOSTILE}\"\n"
    )
    lines = [
        {
            "step": step,
            "time": step / 10,
            "clip_order/loss": 2 - step / steps,
            "clip_order/accuracy": step / steps,
            "gate/loss": 0.0,
            "gate/rgb": 0.7,
            "gate/audio": 0.3,
            "learning_rate": None if step == 1 else 1e-3,
        }
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = Table(
        "Frozen features", ["feature", "linear", "AUC"], [["fused", 0.8125, None], [HOSTILE, 0.5, 0.25]], "5 folds"
    )
    figures = [
        Confusion("Confusion", ["calm", HOSTILE], [[5, 1], [2, 4]]),
        Curves("ROC", "false alarms", "recall", {"fused": [(0.0, 0.0), (1.0, 1.0)]}, diagonal=True),
        Gates("Gates by class", ["rgb", "audio"], ["calm", HOSTILE], [[0.6, 0.4], [0.3, 0.7]]),
    ]
    save_result(new_result("probe", "Probe", "modalgate probe RUN SHARDS", [table], figures), folder)
    levels = ["inf", "10", "0"]
    curve = LevelCurves(
        f"audio: {HOSTILE}",
        "SNR dB",
        "accuracy",
        levels,
        {"fused": [0.9, 0.8, float("nan")], HOSTILE: [0.7, 0.6, 0.5]},
        {"fused": [(0.8, 1.0), (0.7, 0.9), (float("nan"), float("nan"))]},
        {"rgb": [0.5, 0.7, 0.9], "audio": [0.5, 0.3, 0.1]},
    )
    every = Table(
        "Every level",
        ["corrupted", "by", "level", "accuracy", "low", "high", "best single", "own weight", "clips"],
        [["audio", HOSTILE, level, 0.9, 0.8, 1.0, 0.7, 0.5, 40] for level in levels],
        folded=True,
    )
    weights = {"rgb": 0.6, "audio": 0.4}
    clips = [
        Example(HOSTILE, "right", "calm", "calm", 0.99, weights, "examples/one.png"),
        Example("clip", "wrong", HOSTILE, "calm", 0.9, weights, "examples/two.png"),
        Example("gone", "wrong", "fight", "calm", 0.9, weights, "examples/absent.png"),
        Example("outside", "wrong", "fight", "calm", 0.9, weights, "../contact.png"),
    ]
    result = new_result("robustness", "Robustness", "", [every], [curve, Examples("Examples", clips)])
    save_result(result, folder)
    (folder / "results" / "examples").mkdir()
    for name in ("one", "two"):
        Image.fromarray(np.full((60, 300, 3), 40, np.uint8)).save(folder / "results" / "examples" / f"{name}.png")
    start = {
        "step": 0,
        "versions": {"python": "3.99.1", "torch": "9.9"},
        "git": {"commit": "abcdef0123456789", "dirty": True},
        "machine": {"processor": "a fast one", "cores": 2, "memory_gb": 8.0, "devices": [], "system": "Linux"},
        "fingerprint": "f00d",
    }
    (folder / "environment.json").write_text(json.dumps({"starts": [start, start | {"step": 20}]}))
    timeline = Timeline("clip", [0.5, 1.0], {"calm": [0.1, 0.9]}, {"rgb": [0.5, 0.4], "audio": [0.5, 0.6]})
    save_result(new_result("predict", "Prediction", "", [], [timeline]), folder)
    Image.fromarray(np.full((40, 600, 3), 90, np.uint8)).save(folder / "contact.png")
    return folder


class _Page(HTMLParser):
    """Collects tags, text of headings and cells, and everything that could be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.tags[-1][0], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One page of two runs."""
    folder = tmp_path_factory.mktemp("report")
    target = folder / "out" / "report.html"
    write_report([_run(folder / "first"), _run(folder / HOSTILE.replace("/", "")[:30])], target)
    assert [entry.name for entry in target.parent.iterdir()] == ["report.html"]
    return target


@pytest.fixture(scope="module")
def page(report: Path) -> _Page:
    return _Page(report.read_text(encoding="utf-8"))


def test_the_page_shows_the_content_of_the_run(page: _Page) -> None:
    assert page.of("h2")[0] == "first"
    assert set(page.of("h3")[:3]) == {"Probe", "Robustness", "Prediction"}
    for section in ("Losses", "Accuracies", "Gate weights", "Example clips"):
        assert section in page.of("h3")
    assert page.of("td")[:6] == ["fused", "0.812", "–", HOSTILE, "0.500", "0.250"]
    assert "modalgate pretrain demo 'name=a b'" in page.of("code")
    assert any(HOSTILE in text for text in page.of("pre"))
    facts = page.of("dd")
    for text in ("python 3.99.1, torch 9.9", "commit abcdef012345, with uncommitted changes", "at step 20"):
        assert text in facts
    assert "a fast one, 2 cores, 8.0 GB, no GPU, Linux" in facts
    assert [text for text in page.of("span") if text in ("right", "wrong")][:4] == [
        "right",
        "wrong",
        "wrong",
        "wrong",
    ]
    names = [attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg"]
    for start in ("clip_order/loss over", "clip_order/accuracy over", "mean gate weight over", "Confusion: 75.0%"):
        assert any(name.startswith(start) for name in names), start
    # The fusion's zero loss is in the folded section.
    assert [name for name in names if name.startswith("gate/loss")]
    assert page.of("summary")[:3] == ["Every level", "Other measurements", "Resolved config"]
    # Two example pictures and the contact sheet. One picture is missing, and one is outside the results folder.
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2 * 3


def test_names_from_data_are_escaped(page: _Page) -> None:
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert HOSTILE in page.of("td")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_is_one_file(report: Path, page: _Page) -> None:
    assert not re.search(r"https?://", report.read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "script", "iframe", "object")]
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:image/png;base64,")), (tag, attributes)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert ("viewport", "width=device-width, initial-scale=1") in [
        (attributes.get("name"), attributes.get("content")) for tag, attributes in page.tags if tag == "meta"
    ]


def test_long_curves_are_thinned_to_means(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        json.dumps({"step": step, "time": 1, "loss": step % 2 if step > 200 else None}) for step in range(20_000)
    ]
    path.write_text("\n".join(lines) + '\n{"step": 20000, "lo')
    curves = read_curves(path)
    assert list(curves) == ["loss"]
    assert len(curves["loss"].steps) == len(curves["loss"].values) == 500
    assert curves["loss"].lines == 40
    assert curves["loss"].steps[-1] == pytest.approx(19_979.5)
    assert np.isnan(curves["loss"].values[:5]).all()
    assert curves["loss"].values[6:] == pytest.approx([0.5] * 494)


def test_folds_and_bare_runs_are_shown(tmp_path: Path) -> None:
    run = _run(tmp_path / "folded")
    (run / "fold-1").mkdir()
    (run / "metrics.jsonl").rename(run / "fold-1" / "metrics.jsonl")
    bare = tmp_path / "bare"
    (bare / "encoder").mkdir(parents=True)
    (bare / "config.yaml").write_text("kind: pretrain\n")
    (bare / "encoder" / "encoder.json").write_text('{"provenance": {"versions": {"torch": "7.7.7"}}}')
    write_report([run, bare], tmp_path / "report.html")
    page = _Page((tmp_path / "report.html").read_text())
    assert "Losses, fold-1" in page.of("h3")
    assert "torch 7.7.7" in page.of("dd")
    assert "This run has no logs or results yet." in page.of("p")


def test_cells() -> None:
    for cell, text in ((None, "–"), (0.5, "0.500"), (12, "12"), ("a", "a"), (3e-5, "3e-05")):
        assert format_cell(cell) == text


def test_folders_that_are_not_runs_raise(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    out = tmp_path / "report.html"
    for runs, words in (([tmp_path / "absent"], "absent"), ([tmp_path / "shards"], "shards"), ([], "at least one")):
        with pytest.raises(RequestError, match=words):
            write_report(runs, out)
    assert not out.exists()
    run = _run(tmp_path / "run", steps=2)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match="folder"):
        write_report([run], tmp_path / "folder")
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "- a list"),
        ("metrics.jsonl", '{"step": 1, "loss": 2}\n{"step"\n{"step": 3, "loss": 1}\n'),
        ("metrics.jsonl", '{"loss": 2}\n'),
        ("results/probe.json", "{"),
        ("encoder/encoder.json", "[]"),
    ],
)
def test_a_damaged_file_raises_and_keeps_the_old_page(tmp_path: Path, file: str, content: str) -> None:
    run = _run(tmp_path / "run", steps=2)
    if file.startswith("encoder"):
        shutil.rmtree(run / "results")
        (run / "environment.json").unlink()
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text(content)
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(DataError, match=file):
        write_report([run], out)
    assert out.read_text() == "old"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_a_browser_shows_it(
    report: Path, browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    browser.look(size, scheme)
    browser.console()
    browser.open(report)
    assert browser.overflow() == 0
    assert browser.console() == []
    # The label with a script is shown as text. It did not run, so the page's title is unchanged.
    assert browser.read("document.title").startswith("modalgate: first, ")
    assert browser.read(
        "[...document.querySelectorAll('td')].some(cell => cell.textContent === arguments[0])", HOSTILE
    )
    # Nothing was loaded, and every picture was decoded.
    assert (
        browser.read("performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length") == 0
    )
    assert browser.read("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.read("document.images.length") == 2 * 3
    widths = browser.read("[...document.querySelectorAll('section svg')].map(s => s.getBoundingClientRect().width)")
    assert len(widths) == 2 * 9
    assert min(widths) > 200
    # Text in figures is large enough to read. A phone scrolls wide figures.
    heights = browser.read(
        "[...document.querySelectorAll('section svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) > 7
    light = sum(browser.read("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"))
    assert (light > 600) == (scheme == "light")


def test_folded_tables_open_and_tables_scroll(report: Path, browser: Browser) -> None:
    browser.look(PHONE)
    browser.open(report)
    table = "[...document.querySelectorAll('details')].find(d => d.textContent.includes('Every level'))"
    assert not browser.read(f"{table}.querySelector('table').checkVisibility({{contentVisibilityAuto: true}})")
    browser.read(f"{table}.querySelector('summary').click()")
    assert browser.wait(f"{table}.querySelector('table').checkVisibility({{contentVisibilityAuto: true}})")
    assert browser.read(
        f"{table}.querySelector('.scroll').scrollWidth > {table}.querySelector('.scroll').clientWidth"
    )
    assert browser.overflow() == 0


def test_warnings_and_chance_are_on_the_page(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", steps=4)
    lines = [
        json.loads(line) | {"clip_order/chance": 1 / 6} for line in (run / "metrics.jsonl").open(encoding="utf-8")
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = [f"task clip_order ends at chance (accuracy 0.1): {HOSTILE}", "the loss is near guessing"]
    text = "".join(json.dumps({"step": 4, "warning": line}) + "\n" for line in said)
    (run / "warnings.jsonl").write_text(text, encoding="utf-8")
    judged = new_result("finetune", "Fine-tuning", "", [], [], [f"told by chance {HOSTILE}"])
    save_result(judged, run)
    write_report([run], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('class="warnings"') == 2
    assert page.index("the loss is near guessing") < page.index("Fine-tuning</h3>") < page.index("told by chance")
    assert HOSTILE not in page
    # The panel of the accuracy has both lines. Chance has no separate panel.
    assert "clip_order/accuracy ends at 1, chance ends at 0.167" in page
    assert "clip_order/chance over training steps" not in page
