"""The documentation: it builds without warnings, links are valid, nothing is remote, code runs, curves move."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from conftest import BROWSER, PROJECT
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without running its notebooks, which `make docs` does."""
    shutil.rmtree(PROJECT / "docs/generated", ignore_errors=True)  # made anew: a module may be gone
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "nb_execution_mode=off"]
    done = subprocess.run([*command, PROJECT / "docs", directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory


class Links(HTMLParser):
    """Resources that a page loads, its links, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "src" in values or (tag == "link" and values.get("rel") == "stylesheet"):
            self.loaded.append(values.get("src") or values["href"])
        elif tag == "a" and "href" in values:
            self.linked.append(values["href"])


def test_links_lead_somewhere_and_nothing_is_remote(site):
    pages = {page: Links(page) for page in site.rglob("*.html")}
    assert len(pages) > 40
    broken = []
    for page, links in pages.items():
        for address in (*links.loaded, *links.linked):
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "mailto") and address in links.linked:
                continue  # whoever follows it knows that it leads away
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchored = not parts.fragment or target.suffix != ".html" or parts.fragment in pages[target].anchors
            if parts.scheme or parts.netloc or not target.is_file() or not anchored:
                broken.append(f"{page.relative_to(site)}: {address}")
    assert broken == []
    remote = re.compile(r"(url\(|@import)\s*['\"]?(https?:)?//")
    assert [file.name for file in site.rglob("*.css") if remote.search(file.read_text(encoding="utf-8"))] == []


def test_every_formula_is_there(site):
    page = (site / "explore.html").read_text(encoding="utf-8")
    assert "<math" in page and "$" not in page.split("<article")[1].split("</article")[0]
    reference = (site / "generated/leaf.activations.html").read_text(encoding="utf-8")
    assert "<mi>β</mi>" in reference and r"\beta" not in reference


def test_names_are_written_as_they_are(site):
    assert "<strong>with_</strong>" in (site / "generated/leaf.conversion.html").read_text(encoding="utf-8")
    page = (site / "generated/leaf.experiment.random_streams.html").read_text(encoding="utf-8")
    assert "shift_x,shift_y – int64" in re.sub("<[^>]+>", "", page)


def test_the_reference_has_every_module(site):
    sources = (PROJECT / "src").rglob("*.py")
    modules = {".".join(source.relative_to(PROJECT / "src").with_suffix("").parts) for source in sources}
    modules = {module.removesuffix(".__init__") for module in modules} - {"leaf"}  # which shows what is in these
    assert {page.name.removesuffix(".html") for page in site.glob("generated/*.html")} == modules


PAGES = [
    page
    for page in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs_unchanged(page):
    """Run a page's code blocks in order; they must import what they need."""
    names: dict[str, object] = {"__name__": page.stem}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        exec(compile(block, page, "exec"), names)


@contextmanager
def browser(site: Path) -> Iterator[Page]:
    """Open a page in Chromium; at the end it must have no errors and no network requests."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = chromium.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"{request.url} failed"))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        yield page
        chromium.close()
    assert complaints == []


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_pages_on_a_phone(site):
    with browser(site) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        for file in sorted(site.rglob("*.html")):
            page.goto(f"file://{file}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, file.name


def curve(page: Page, plot: str, which: str) -> np.ndarray:
    """The points of a curve, ``(points, 2)``, in the picture's units."""
    path = page.locator(f"#{plot} path.{which}").get_attribute("d")
    return np.array([point.split(",") for point in path[1:].split("L")], dtype=float)


def units(page: Page, plot: str) -> tuple[float, float]:
    """Position of 0 in a picture and distance to 1, from the tick marks on its left side."""
    marks = page.locator(f"#{plot} text[text-anchor=end]")
    at = {mark.text_content(): float(mark.get_attribute("y")) for mark in marks.all()}
    return at["0"] - 4, at["0"] - at["1"]  # letters stand 4 below their line


def values(page: Page, plot: str, which: str) -> np.ndarray:
    """Values of a curve at ``INPUTS``."""
    zero, one = units(page, plot)
    points = curve(page, plot, which)
    left, right = points[0, 0], points[-1, 0]
    return np.interp(INPUTS, -6 + 12 * (points[:, 0] - left) / (right - left), (zero - points[:, 1]) / one)


INPUTS = np.linspace(-3, 3, 61)


def leaf(p1: float, p2: float, p3: float, p4: float, u: np.ndarray = INPUTS) -> np.ndarray:
    return (p1 * u + p2) / (1 + np.exp(-p3 * u)) + p4


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_moving_a_parameter_moves_the_curve(site):
    bases = {"SiLU": leaf(1, 0, 1, 0), "Tanh": np.tanh(INPUTS), "Sigmoid": leaf(0, 1, 1, 0), "ReLU": INPUTS.clip(0)}
    with browser(site) as page:
        page.goto(f"file://{site}/explore.html")
        for name, base in bases.items():
            page.get_by_role("button", name=name).click()
            expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
            for which in ("leaf", "base"):
                assert values(page, "function", which) == pytest.approx(base, abs=0.02)

        slider, name = page.get_by_label("the shift").bounding_box(), page.get_by_text("the shift").bounding_box()
        assert slider["width"] > name["width"] > 0  # most of the line is the slider's

        page.get_by_role("button", name="Tanh").click()
        page.get_by_label("the line's slope").fill("0.5")
        page.get_by_label("the gate's slope").fill("1")  # on a slider that is a logarithm: 2^1 - 1
        page.get_by_label("the shift").press("ArrowRight")  # by a hundredth
        moved = (0.5, 2, 1, -0.99)
        expect(page.locator("output[for=p4]")).to_have_text("−0.99")
        assert values(page, "function", "leaf") == pytest.approx(leaf(*moved), abs=0.02)
        assert values(page, "function", "base") == pytest.approx(np.tanh(INPUTS), abs=0.02)
        slope = (leaf(*moved, INPUTS + 1e-6) - leaf(*moved, INPUTS - 1e-6)) / 2e-6
        assert values(page, "gradient", "leaf") == pytest.approx(slope, abs=0.02)
        assert values(page, "gradient", "base") == pytest.approx(1 - np.tanh(INPUTS) ** 2, abs=0.02)

        page.get_by_role("button", name="ReLU").click()
        page.get_by_label("the line's offset").fill("0.01")
        largest = float(page.locator("#largest").text_content().replace(",", ""))
        assert largest == pytest.approx(0.01 * 2**16 / 4, rel=0.01)  # where the gate opens, drawn or not
