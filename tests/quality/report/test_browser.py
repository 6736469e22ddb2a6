"""The pages in a real browser: from disk, silent, asking for nothing, at any width, and by keyboard."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from medphantom.quality.report.compare import compare
from medphantom.quality.report.compare_page import render_comparison
from medphantom.quality.report.write import INTERNAL_PAGE, JSON_FILE, PUBLIC_PAGE, PublishedReport
from tests.quality.report import test_counterfactual_page, test_report
from tests.quality.utility import test_study_page

CHROMIUM = os.environ.get("MEDPHANTOM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install the package chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = test_report._write(tmp_path_factory.mktemp("browser"))[3]
    pairs = tmp_path_factory.mktemp("pairs")
    test_counterfactual_page.written(pairs)
    study, side = tmp_path_factory.mktemp("study") / "study.html", tmp_path_factory.mktemp("compare") / "compare.html"
    study.write_text(test_study_page.page())
    report = PublishedReport.load(folder / JSON_FILE)
    compared = compare({"one": report, "<b>other</b>": report, "a third": report})
    side.write_text(render_comparison(compared, (), created="2026-01-01T00:00:00+00:00", drawn=""))
    return {
        "internal": folder / INTERNAL_PAGE,
        "public": folder / PUBLIC_PAGE,
        "pairs": pairs / "out" / INTERNAL_PAGE,
        "study": study,
        "compare": side,
    }


class Visit:
    """An open page, with its console messages and its requests."""

    def __init__(self, browser: Browser, file: Path, viewport: dict[str, int], scheme: str = "light") -> None:
        self.messages: list[str] = []
        self.requested: list[str] = []
        context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", self._request)
        self.page.goto(file.as_uri())
        self.page.wait_for_load_state("load")

    def _console(self, message: ConsoleMessage) -> None:
        self.messages.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if request.url.split(":")[0] not in {"file", "data", "blob"} or request.url.count("file:") > 1:
            self.requested.append(request.url)


@pytest.mark.parametrize("name", ["internal", "public", "pairs", "study", "compare"])
@pytest.mark.parametrize(("viewport", "scheme"), [(PHONE, "light"), (DESKTOP, "light"), (PHONE, "dark")])
def test_pages_open_in_silence_and_fit_the_screen(
    browser: Browser, pages: dict[str, Path], name: str, viewport: dict[str, int], scheme: str
) -> None:
    visit = Visit(browser, pages[name], viewport, scheme)
    assert visit.messages == []
    assert visit.requested == []
    wide, room = visit.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room
    small = visit.page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.childNodes.length && [...e.childNodes].some("
        "n => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 10.5).length"
    )
    assert small == 0, "text below 10.5 pixels"
    ink, paper = visit.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) > 7, (ink, paper)
    picture = visit.page.screenshot(full_page=True)
    assert len(picture) > 10_000
    visit.page.context.close()


def contrast(ink: str, paper: str) -> float:
    """Contrast ratio of WCAG 2.2, 1 to 21, of two ``rgb(…)`` colours."""

    def luminance(colour: str) -> float:
        parts = [int(float(part)) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(ink), luminance(paper)))
    return (light + 0.05) / (dark + 0.05)


def test_tables_sort_and_pictures_enlarge_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    visit = Visit(browser, pages["internal"], DESKTOP)
    page = visit.page
    table = page.locator("table[data-sortable]").first
    button = table.locator("button.sort").nth(0)
    button.focus()
    page.keyboard.press("Enter")
    head = table.locator("thead th").first
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert "descending" in page.locator("#announce").inner_text()
    picture = page.locator("button.picture").first
    picture.focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    assert viewer.evaluate("e => e.open")
    first = page.locator("#viewer-caption").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-caption").inner_text() != first
    page.keyboard.press("Escape")
    assert not viewer.evaluate("e => e.open")
    assert page.evaluate("document.activeElement.className") == "picture"
    assert visit.messages == []
    page.context.close()


def test_every_control_has_a_name_and_every_picture_a_description(browser: Browser, pages: dict[str, Path]) -> None:
    for file in pages.values():
        visit = Visit(browser, file, DESKTOP)
        nameless = visit.page.evaluate(
            "[...document.querySelectorAll('button, a, input, summary')].filter(e => !(e.textContent.trim() || "
            "e.ariaLabel || e.title || e.labels?.length || e.querySelector('img[alt]:not([alt=\"\"])')))"
            ".map(e => e.outerHTML.slice(0, 120))"
        )
        assert nameless == []
        assert visit.page.locator("img:not([alt])").count() == 0
        levels = visit.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        visit.page.context.close()


def test_paper_shows_what_is_folded(browser: Browser, pages: dict[str, Path]) -> None:
    visit = Visit(browser, pages["public"], DESKTOP)
    folded = visit.page.locator("details:not([open])").count()
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded > 0
    assert visit.page.locator("details:not([open])").count() == 0
    visit.page.emulate_media(media="print")
    assert visit.page.pdf(format="A4").startswith(b"%PDF")
    visit.page.context.close()


def test_a_slider_goes_from_factual_to_counterfactual(browser: Browser, pages: dict[str, Path]) -> None:
    visit = Visit(browser, pages["pairs"], DESKTOP)
    slider = visit.page.locator("input[type=range]").first
    slider.focus()
    top = visit.page.locator(".layers img").nth(1)
    before = top.evaluate("e => getComputedStyle(e).clipPath")
    visit.page.keyboard.press("End")
    after = top.evaluate("e => getComputedStyle(e).clipPath")
    assert before != after
    assert visit.messages == []
    visit.page.context.close()
