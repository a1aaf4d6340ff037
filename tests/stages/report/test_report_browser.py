"""The page in a real browser: no complaint, no request, search, both themes, a phone."""

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from hostile_run import make_hostile_run

from stx_mine.stages.report.config import ReportConfig
from stx_mine.stages.report.stage import run_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
VISIBLE = "[...document.querySelectorAll('.example')].filter(one => one.offsetHeight)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_hostile_run(tmp_path_factory.mktemp("page"))
    run_report(ReportConfig(run_dir=str(run)))
    return (run / "report/report.html").resolve()


def contrast(first: str, second: str) -> float:
    """The ratio of WCAG of two colours, as `rgb(r, g, b)`."""

    def luminance(colour: str) -> float:
        parts = [float(one) / 255 for one in colour[4:-1].split(",")]
        red, green, blue = (
            one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    with Browser(page, tmp_path) as browser:
        assert browser.value("document.querySelectorAll('h1').length") == 1
        assert browser.value(f"{VISIBLE}.length") == 30
        assert browser.value("document.querySelectorAll('.l').length") > 10
        # Nothing that a text holds has run, and nothing else was loaded.
        assert browser.requests() == [page.as_uri()]
        for width in (360, 1_200):
            for dark in (False, True):
                browser.look(width=width, dark=dark)
                assert browser.value("document.documentElement.scrollWidth") <= width
                colour = "getComputedStyle(document.body)"
                background = browser.value(f"{colour}.backgroundColor")
                assert (background == "rgb(255, 255, 255)") != dark
                assert contrast(browser.value(f"{colour}.color"), background) > 7
                for name in (".muted", ".what", "a", "summary"):
                    found = browser.value(
                        f"getComputedStyle(document.querySelector('{name}')).color"
                    )
                    assert contrast(found, background) > 4.5, (name, dark)
        assert browser.complaints() == []


def test_queries_are_searched_by_keyboard(page: Path, tmp_path: Path) -> None:
    with Browser(page, tmp_path) as browser:
        browser.press("Tab", 9)
        assert browser.value("document.activeElement.className") == "skip"
        for _ in range(50):
            browser.press("Tab", 9)
            if browser.value("document.activeElement.id") == "search":
                break
        assert browser.value("document.activeElement.id") == "search"
        texts = browser.value(f"{VISIBLE}.map(one => one.textContent.toLowerCase())")
        words = ("sweet violin", "wet engine storm", "thin river", "loud boat")
        expected, asked = max(
            ([one for one in texts if all(word in one for word in some.split())], some)
            for some in words
        )
        assert 0 < len(expected) < 30
        browser.call("Input.insertText", text=asked.upper())
        shown = browser.value(f"{VISIBLE}.map(one => one.textContent.toLowerCase())")
        assert shown == expected
        said = browser.value("document.getElementById('found').textContent")
        assert said == f"{len(shown)} of 30 queries"
        browser.call("Input.insertText", text=" <script> zzzz")
        assert browser.value(f"{VISIBLE}.length") == 0
        browser.value("search.value = ''; search.dispatchEvent(new Event('input'))")
        browser.value("kind.value = 'worst'; kind.dispatchEvent(new Event('change'))")
        assert browser.value(f"{VISIBLE}.length") == 10
        assert browser.complaints() == []
