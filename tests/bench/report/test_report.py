"""The report says what the rows say, in one file, and reads well in a browser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import suites
from bench.curve import QueueCurve
from bench.record import Counts, Row
from bench.report import Figure, build_page, figures_of
from bench.report.curves import queue_text
from bench.report.data import one_build, trios
from bench.report.style import draw, to_png, to_svg
from bench.report.timeline import Timeline
from bench.store import Results
from bench.sweep import sweep
from vmirom.main import cli
from vmm.core.errors import BadDescription
from vmm.core.event import Event, Reason
from vmm.core.ledger import ReasonCount
from vmm.recording import ExitRecord

SMALL = "rounds=2 pages=48 tasks=3"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of real runs, small ones: two guests, two policies."""
    path = tmp_path_factory.mktemp("report") / "small.db"
    points = [
        replace(
            point,
            case=replace(point.case, command_line=SMALL),
            description=replace(point.description, command_line=SMALL),
        )
        for point in suites.batching(["pagefault", "forkstorm"], ["svm-shadow", "npt"], quick=True)
    ]
    with Results(path) as file:
        sweep(points, file)
    return path


@pytest.fixture(scope="module")
def rows(results: Path) -> list[Row]:
    with Results(results, create=False) as file:
        return file.rows()


@pytest.fixture(scope="module")
def figures(rows: list[Row]) -> list[Figure]:
    return figures_of(rows)


@pytest.fixture(scope="module")
def page(rows: list[Row], figures: list[Figure]) -> str:
    return build_page(rows, figures, "a <title> & more")


class Outline(HTMLParser):
    """Ids, references and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            elif name in {"href", "src", "xlink:href", "srcset"}:
                self.references.append(value or "")


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    return found


def test_every_figure_is_there(figures: list[Figure]) -> None:
    slugs = [figure.slug for figure in figures]
    assert slugs == ["savings", "reasons", "queue", "policies", "costs", "timeline"]
    assert all(figure.text and figure.description and figure.tables for figure in figures)


def test_the_page_needs_nothing_else(page: str, outline: Outline) -> None:
    assert outline.tags["script"] == 0
    assert all(one.startswith(("#", "data:,")) for one in outline.references), outline.references
    addresses = set(re.findall(r'https?://[^"\s<]+', page))
    assert all("w3.org" in one or one in _sources(page) for one in addresses)
    assert "a &lt;title&gt; &amp; more" in page


def _sources(page: str) -> set[str]:
    """Addresses in the text of tables, where a source is cited; they load nothing."""
    return set(re.findall(r"<t[dh][^>]*>[^<]*?(https?://[^\s<]+)", page))


def test_ids_are_unique_and_references_lead_somewhere(outline: Outline) -> None:
    assert [one for one, count in outline.ids.items() if count > 1] == []
    targets = {one.removeprefix("#") for one in outline.references if one.startswith("#")}
    assert targets <= set(outline.ids)


def test_numbers_are_those_of_the_rows(rows: list[Row], figures: list[Figure]) -> None:
    by_slug = {figure.slug: figure for figure in figures}
    table = by_slug["savings"].tables[0]
    for trio in trios(rows):
        if trio.policy != "svm-shadow":
            continue
        row = next(row for row in table.rows if row[0] == trio.name)
        assert trio.batching is not None
        assert row[1:5] == (
            f"{trio.none.exits:,}",
            f"{trio.none.exits:,}",
            f"{trio.batching.exits:,}",
            f"{trio.none.exits - trio.batching.exits:,}",
        )
        assert row[6] == "128"
    curve = by_slug["queue"].tables[0]
    expected = {
        (row.case.policy, row.case.queue, row.counts.exits)
        for row in rows
        if row.case.queue is not None and row.counts is not None
    }
    shown = {(r[1], int(r[2].replace(",", "")), int(r[3].replace(",", ""))) for r in curve.rows}
    assert shown == expected


def test_the_queue_is_drawn_for_the_first_policy(figures: list[Figure]) -> None:
    queue = next(figure for figure in figures if figure.slug == "queue")
    assert "under svm-shadow" in queue.description
    assert any("batching stops paying" in paragraph for paragraph in queue.text)


def test_hardware_paging_saves_nothing_and_that_is_said(figures: list[Figure]) -> None:
    policies = next(figure for figure in figures if figure.slug == "policies")
    assert any("nothing to save" in paragraph for paragraph in policies.text)


def test_the_timeline_adds_up(rows: list[Row], figures: list[Figure]) -> None:
    table = next(figure for figure in figures if figure.slug == "timeline").tables[0]
    none = sum(int(row[1].replace(",", "")) for row in table.rows)
    assert none in {trio.none.exits for trio in trios(rows)}


def test_the_same_rows_give_the_same_page(rows: list[Row], page: str) -> None:
    assert build_page(rows, figures_of(rows), "a <title> & more") == page


def test_older_code_is_left_out_and_counted(rows: list[Row]) -> None:
    old = replace(rows[0], build=replace(rows[0].build, code="0" * 64))
    old = replace(old, started_at=old.started_at.replace(year=2000))
    kept, others = one_build([old, *rows])
    assert (len(kept), others) == (len(rows), 1)
    assert "1 runs in the file are of older code" in build_page([old, *rows], [], "t")


def test_operations_are_told_apart() -> None:
    with Results() as file:
        sweep(suites.io(quick=True), file)
        (figure,) = figures_of(file.rows())
    assert figure.slug == "io"
    rows = {(row[0], row[1]): row for row in figure.tables[0].rows}
    plain = [row for (_, served_by), row in rows.items() if served_by == "plain device"]
    assert len(plain) == len(suites.IO_UNITS)
    for what in (
        "console byte: fewest by filter lsr+pit, 2 exits, 1 of them heavy",
        "4 KiB, 1 command: fewest by ROM, patched or ROM, called, 2 exits",
        "Reflection pays",
    ):
        assert any(what in paragraph for paragraph in figure.text), what
    exits, cost = figure.tables
    assert len(exits.rows) == len(cost.rows)


def test_nothing_to_show_is_said() -> None:
    with pytest.raises(BadDescription, match="no counted runs"):
        figures_of([])


# ---- words


def counts(exits: int, full: int) -> Counts:
    by_reason = {Reason.HYPERCALL: ReasonCount(exits, 0)}
    return Counts(1, 0, 1, by_reason, forced=exits - full, queue_full=full)


def curve(*exits: int, none: int = 1000, reached: bool = True) -> QueueCurve:
    last = len(exits) - 1
    points = tuple(
        (1 << i, counts(n, 0 if reached and i == last else 5)) for i, n in enumerate(exits)
    )
    return QueueCurve("g", "", "svm-shadow", "tlb", points, none)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (curve(900, 500, 300, 299), "stops paying at 4 records"),
        (curve(900, 300, 300, 300), "stops paying at 2 records"),
        (curve(900, 500, reached=False), "even 2 records fill up"),
        (curve(300, 300), "makes no difference"),
        (curve(1200, 1100), "saves nothing, whatever the capacity"),
    ],
)
def test_where_batching_stops_paying(found: QueueCurve, words: str) -> None:
    assert words in queue_text([found])[-1]


def test_a_timeline_keeps_its_bins_few_and_loses_nothing() -> None:
    line = Timeline(bins=8)
    times = [0, 10, 999, 5000, 123_456, 5_000_000, 7_777_777]
    exits: list[ExitRecord] = [(t, 0, 0, int(Event.INVLPG), 0, 0, 0, 0, 0, 0) for t in times]
    line.take(0, exits)
    assert len(line.counts) <= 8
    assert sum(sum(one.values()) for one in line.counts) == len(times)
    assert line.counts[7_777_777 // line.width]["invlpg"] >= 1


# ---- pictures


def test_svg_follows_the_page() -> None:
    def make(slug: str) -> str:
        with draw() as drawing:
            drawing.subplots().plot([1, 2], [3, 4])
            return to_svg(drawing, slug, "a & b", "less < more")

    one, again, other = make("one"), make("one"), make("other")
    assert one == again
    assert "currentColor" in one
    assert "a &amp; b" in one
    assert "less &lt; more" in one
    ids = re.findall(r'\bid="([^"]+)"', one)
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', other))


def test_png_is_one() -> None:
    with draw() as drawing:
        drawing.subplots().plot([1, 2], [3, 4])
        assert to_png(drawing).startswith(b"\x89PNG")


# ---- the command


def test_the_command(results: Path, tmp_path: Path) -> None:
    page, folder = tmp_path / "r.html", tmp_path / "figures"
    done = CliRunner().invoke(
        cli, ["report", str(results), "-o", str(page), "--svg", str(folder), "--png", str(folder)]
    )
    assert done.exit_code == 0, done.output
    assert "6 figures" in done.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")
    names = {path.name for path in folder.iterdir()}
    assert {"queue.svg", "queue.png", "timeline.svg"} <= names


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing.db"], "no such file"),
        (["--costs", "i8080", "RESULTS"], "i8080"),
        (["RESULTS", "-o", "/dev/null/x.html"], "File exists"),
    ],
)
def test_bad_input(results: Path, arguments: list[str], reason: str) -> None:
    given = [str(results) if one == "RESULTS" else one for one in arguments]
    done = CliRunner().invoke(cli, ["report", *given])
    assert done.exit_code == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


# ---- a real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()


@pytest.mark.peer("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser(page: str, browser: object, scheme: str, width: int, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    file = tmp_path / "report.html"
    file.write_text(page)
    context = browser.new_context(  # type: ignore[attr-defined]
        color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True
    )
    shown = context.new_page()
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("requestfailed", lambda request: complaints.append(request.url))
    shown.goto(file.as_uri())
    assert complaints == []
    # On a phone the tables scroll, not the page.
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.className") == "skip"
    for _ in range(30):
        if shown.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
        shown.keyboard.press("Tab")
    shown.keyboard.press("Enter")
    assert shown.locator("details[open] table").first.is_visible()
    found = axe.Axe().run(shown)
    assert found.violations_count == 0, found.generate_report()
    context.close()


@pytest.mark.peer("chromium")
def test_on_paper(page: str, browser: object, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page)
    shown = browser.new_page(color_scheme="dark")  # type: ignore[attr-defined]
    shown.goto(file.as_uri())
    assert shown.pdf(format="A4").startswith(b"%PDF")
    shown.emulate_media(media="print")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not shown.locator("nav").is_visible()
    shown.close()
