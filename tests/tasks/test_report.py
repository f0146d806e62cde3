"""The report: what a run folder holds is on the page, escaped, in one file, readable on a phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.errors import DataError, RequestError
from modalgate.tasks.report import format_cell, read_curves, write_report
from modalgate.tasks.results import Confusion, Curves, Gates, Table, Timeline, new_result, save_result
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
HOSTILE = "<script>document.title='pwned'</script>"


def _run(folder: Path, steps: int = 40) -> Path:
    """A run folder as training and two verbs leave it."""
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
    timeline = Timeline("clip", [0.5, 1.0], {"calm": [0.1, 0.9]}, {"rgb": [0.5, 0.4], "audio": [0.5, 0.6]})
    save_result(new_result("predict", "Prediction", "", [], [timeline]), folder)
    Image.fromarray(np.full((40, 600, 3), 90, np.uint8)).save(folder / "contact.png")
    return folder


class _Page(HTMLParser):
    """Tags, the text of headings and cells, and whatever could be fetched."""

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


def test_the_page_shows_what_the_run_holds(page: _Page) -> None:
    assert page.of("h2")[0] == "first"
    assert page.of("h3")[:2] == ["Probe", "Prediction"]
    for section in ("Losses", "Accuracies", "Gate weights", "Example clips"):
        assert section in page.of("h3")
    assert page.of("td")[:6] == ["fused", "0.812", "–", HOSTILE, "0.500", "0.250"]
    assert "modalgate pretrain demo 'name=a b'" in page.of("code")
    assert any(HOSTILE in text for text in page.of("pre"))
    assert any(re.search(r"python 3\.\d+.*torch \d", text) for text in page.of("dd"))
    names = [attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg"]
    for start in ("clip_order/loss over", "clip_order/accuracy over", "mean gate weight over", "Confusion: 75.0%"):
        assert any(name.startswith(start) for name in names), start
    # The fusion's loss of zero is folded away with the rest.
    assert [name for name in names if name.startswith("gate/loss")]
    assert page.of("summary")[:2] == ["Other measurements", "Resolved config"]


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
    assert "Nothing was logged in this run yet." in page.of("p")


@pytest.mark.parametrize(("cell", "text"), [(None, "–"), (0.5, "0.500"), (12, "12"), ("a", "a"), (3e-5, "3e-05")])
def test_cells(cell: str | float | None, text: str) -> None:
    assert format_cell(cell) == text


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
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
def test_a_damaged_file_is_named_and_the_old_page_stays(tmp_path: Path, file: str, content: str) -> None:
    run = _run(tmp_path / "run", steps=2)
    if file.startswith("encoder"):
        shutil.rmtree(run / "results")
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text(content)
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(DataError, match=file):
        write_report([run], out)
    assert out.read_text() == "old"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
@pytest.mark.parametrize("width", [380, 1200])
def test_a_browser_shows_it_without_sideways_scrolling(report: Path, tmp_path: Path, width: int) -> None:
    harness = tmp_path / "harness.html"
    document = html.escape(report.read_text(encoding="utf-8"))
    harness.write_text(
        f'<iframe id="page" style="border:0;width:{width}px;height:900px" srcdoc="{document}"></iframe>'
        '<p id="said"></p>'
        "<script>addEventListener('load', () => { const d = document.getElementById('page').contentDocument;"
        "document.getElementById('said').textContent = JSON.stringify([d.documentElement.scrollWidth, d.title,"
        "d.querySelectorAll('svg').length, Math.min(...[...d.querySelectorAll('section svg')].map("
        "s => s.getBoundingClientRect().width)), d.querySelector('img').naturalWidth]) })</script>",
        encoding="utf-8",
    )
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --dump-dom"
    shown = subprocess.run(
        [str(BROWSER), *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", harness.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    said = re.search(r'<p id="said">(.*?)</p>', shown)
    assert said is not None
    scroll_width, title, pictures, narrowest, contact = json.loads(html.unescape(said[1]))
    assert scroll_width <= width
    assert title.startswith("modalgate: first, ")
    assert pictures == 2 * 10
    assert narrowest > 100
    assert contact == 600
