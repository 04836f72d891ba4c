"""The leaderboard in a browser: it draws itself without an error, sorts, filters, and axe-core finds nothing serious."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.record.protocol import Protocol
from harness.record.record import write_record
from harness.report.leaderboard import read_entries, write_page
from tests.harness.conftest import make_run  # noqa: F401 (a fixture)

pytest.importorskip("playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")]
OTHER = Protocol(resolution=128)
HOSTILE = "<script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path, make_run: Any) -> Path:  # noqa: F811
    runs = tmp_path / "runs"
    make_run(runs / "a", {"vae": 0.2, "mine": 0.0, HOSTILE: 0.1}, bits={"vae": 1000.0, "mine": 4000.0})
    other = make_run(runs / "b", {"vae": 0.0, "jpeg": 0.3}, protocol=OTHER)
    write_record(other.folder, replace(other.data, environment={**other.data.environment, "cpu_model": "second"}))
    (runs / "broken").mkdir()
    (runs / "broken" / "record.json").write_text("{")
    return write_page(*read_entries([runs]), tmp_path / "site")


@pytest.fixture
def opened(browser: Any, site: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    """The page and what went wrong in it: errors, messages of its console, requests for anything else."""
    width, scheme = getattr(request, "param", (1440, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url != site.as_uri() else None)
    page.goto(site.as_uri())
    yield page, wrong
    context.close()


def names(page: Any) -> list[str]:
    """First cells of the measured rows that can be seen, in order."""
    return [text.replace(" †", "") for text in page.locator("h2:text('Measured') ~ figure a:visible").all_inner_texts()]


def test_it_sorts_within_a_table_and_filters_all(opened: tuple[Any, list[str]]) -> None:
    page, wrong = opened
    protocol, rate, device = (page.locator(".controls select").nth(at) for at in range(3))
    text = page.locator(".controls input")
    assert sorted(names(page)) == sorted(["vae", "mine", HOSTILE, "vae", "jpeg"])
    first = page.get_by_role("table").first
    first.get_by_role("button", name="LPIPS ↓").click()
    assert names(page)[:3] == ["mine", HOSTILE, "vae"]
    first.get_by_role("button", name="LPIPS ↓").click()
    assert names(page)[:3] == ["vae", HOSTILE, "mine"]
    assert names(page)[3:] == ["vae", "jpeg"]  # the other protocol's table stays as it is

    protocol.select_option(protocol.locator("option", has_text=OTHER.hash()).inner_text())
    assert names(page) == ["vae", "jpeg"]
    protocol.select_option("")
    device.select_option("cpu: second")
    assert names(page) == ["vae", "jpeg"]
    device.select_option("")
    rate.select_option("no code")
    assert sorted(names(page)) == sorted([HOSTILE, "vae", "jpeg"])
    text.fill("JPEG")
    assert names(page) == ["jpeg"]
    assert page.get_by_role("status").first.inner_text() == "1 of 5 rows"
    text.fill("nothing such")
    assert names(page) == []
    assert page.get_by_text("never ranked").is_visible()  # published figures are no rows of these
    assert wrong == []


def test_a_row_leads_to_where_it_comes_from(opened: tuple[Any, list[str]]) -> None:
    page, wrong = opened
    page.get_by_role("link", name="jpeg").click()
    target = page.locator(":target")
    assert "runs/b" in target.inner_text()
    assert "not checked" in target.inner_text()
    assert "environment.cpu_model" not in target.inner_text()
    target.get_by_text("Protocol, images, machine").first.click()
    assert "environment.cpu_model" in target.inner_text()
    assert "runs/broken/record.json is not JSON" in page.locator("main").inner_text()
    assert page.title() == "Leaderboard"
    assert wrong == []


@pytest.mark.parametrize("opened", [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")], indirect=True, ids=str)
def test_it_fits_the_screen_and_axe_finds_nothing_serious(opened: tuple[Any, list[str]]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, wrong = opened
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"]) for one in found if one["impact"] in ("serious", "critical")] == []
    assert wrong == []
