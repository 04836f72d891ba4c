"""The page of `msbench report` in a real browser: no error, no request, quick, usable by keyboard, accessible.

Needs `playwright`, `axe-playwright-python` (extra `dev`) and a Chromium on the path; nothing is downloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.record.record import read_record, write_record
from harness.record.run import write_samples
from tests.harness.explain.conftest import FEW, Saved, make_run
from tests.harness.records import details, result, run_data
from tests.harness.run.light import LightSuite

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(2)>", "\u202ecba\u2066", "</script><svg onload=alert(3)>")
SECONDS = 2.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return make_run(tmp_path_factory.mktemp("browser"), "bicubic,pca-f8c4,jpeg", LightSuite, FEW)


@pytest.fixture(scope="module")
def written(saved: Saved) -> Path:
    """A report with latents; the networks behind its figures are stand-ins."""
    path = saved.run.parent / "report.html"
    done = CliRunner().invoke(app, ["report", str(saved.run), "-o", str(path), "--redo"])
    assert done.exit_code == 0, done.output
    return path


def opened(browser: Any, path: Path, width: int = 1440, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page and what went wrong in it: errors, messages, dialogs and requests beside the file itself."""
    page, wrong = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on(
        "request", lambda request: wrong.append(request.url) if request.url[:5] not in ("data:", path.as_uri()[:5]) else None
    )
    page.goto(path.as_uri())
    return page, wrong


def first_cells(page: Any, table: str) -> list[str]:
    return [text.split("\n")[0] for text in page.locator(f"table[aria-label='{table}'] tbody th:visible").all_inner_texts()]


def test_it_is_interactive_soon_without_an_error_or_a_request(browser: Any, written: Path) -> None:
    page, wrong = opened(browser, written)
    drawn = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")  # its script has run
    assert 0 < drawn < 1000 * SECONDS
    page.get_by_role("button", name="Difference", exact=True).click()
    page.wait_for_selector("canvas")
    assert wrong == []
    assert page.evaluate("performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('data:')).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_a_table_sorts_by_value_with_what_is_missing_last_and_filters(browser: Any, written: Path, saved: Saved) -> None:
    page, wrong = opened(browser, written)
    table = "Quality, rate and cost"
    rows = {row["label"]: row for row in read_record(saved.run).results}
    by_psnr = sorted(rows, key=lambda label: -rows[label]["psnr"])
    button = page.locator(f"table[aria-label='{table}'] thead button", has_text="PSNR")
    head = button.locator("xpath=..")
    before = first_cells(page, table)
    button.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"  # the best first
    assert [name.rstrip(" †") for name in first_cells(page, table)] == by_psnr
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [name.rstrip(" †") for name in first_cells(page, table)] == by_psnr[::-1]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert first_cells(page, table) == before
    latent_error = page.locator(f"table[aria-label='{table}'] thead button", has_text="Latent error")
    for _ in range(2):
        latent_error.click()
        assert first_cells(page, table)[-1].startswith("jpeg")  # a codec has none
    page.get_by_label(f"Filter rows: {table}").fill("PCA")
    assert [name.rstrip(" †") for name in first_cells(page, table)] == ["pca-f8c4"]
    assert page.get_by_text("1 of 3 rows").is_visible()
    assert wrong == []
    page.close()


def test_points_of_the_plot_are_read_by_keyboard_and_by_pointer(browser: Any, written: Path) -> None:
    page, wrong = opened(browser, written)
    marks = page.locator("#cost .mark")
    assert marks.count() == 3
    marks.nth(1).focus()
    assert "pca-f8c4: LPIPS" in page.locator("#cost .readout").inner_text()
    marks.nth(2).hover()
    assert "jpeg: LPIPS" in page.locator("#cost .readout").inner_text()
    page.get_by_label("Quality", exact=True).select_option("psnr")
    marks.nth(0).focus()
    assert "bicubic: PSNR" in page.locator("#cost .readout").inner_text()
    assert wrong == []
    page.close()


def test_the_slider_moves_and_all_images_zoom_together_by_keyboard(browser: Any, written: Path) -> None:
    page, wrong = opened(browser, written)
    over = page.locator(".over")
    assert "50%" in over.evaluate("(one) => one.style.clipPath")
    page.get_by_label("Where A ends and B begins").focus()
    page.keyboard.press("End")
    assert "100%" in over.evaluate("(one) => one.style.clipPath")
    page.get_by_role("button", name="Side by side").click()
    frames = page.locator(".frame")
    assert frames.count() == 2  # original and B: A is the original
    frames.nth(0).focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    moved = page.locator(".moving").evaluate_all("(all) => all.map((one) => one.style.transform)")
    assert moved == ["translate(-35%, -25%) scale(1.5)"] * 2
    page.keyboard.press("0")
    assert (
        page.locator(".moving").evaluate_all("(all) => all.map((one) => one.style.transform)")
        == ["translate(0%, 0%) scale(1)"] * 2
    )
    assert wrong == []
    page.close()


def test_the_difference_is_that_of_the_tiles_times_the_gain(browser: Any, written: Path) -> None:
    page, _ = opened(browser, written)
    page.get_by_role("button", name="Difference", exact=True).click()
    page.wait_for_function("document.querySelector('canvas').width !== 300")
    found = page.evaluate("""async () => {
        const images = data.images.tiles.map((row) => row.slice(0, 1 + 2));
        const pixels = async (src) => {
            const image = Object.assign(new Image(), { src });
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return context.getImageData(0, 0, canvas.width, canvas.height).data;
        };
        const at = data.images.keys.indexOf(document.querySelector(".thumbs [aria-pressed=true] img").alt);
        const [one, other] = [await pixels(images[at][0]), await pixels(images[at][2])];
        const shown = document.querySelector("canvas");
        const seen = shown.getContext("2d").getImageData(0, 0, shown.width, shown.height).data;
        const wanted = (place) => (place % 4 === 3 ? 255 : Math.min(255, 8 * Math.abs(one[place] - other[place])));
        return [...seen].every((value, place) => value === wanted(place));
    }""")
    assert found
    page.close()


def test_lists_are_in_order_and_latents_are_shown(browser: Any, written: Path, saved: Saved) -> None:
    page, wrong = opened(browser, written)
    samples = read_record(saved.run).samples().query("decoder == 'jpeg'").set_index("key")
    page.get_by_label("of", exact=True).select_option(label="jpeg")
    page.get_by_label("by", exact=True).select_option(label="PSNR ↑")
    shown = page.locator(".thumbs img").evaluate_all("(all) => all.map((one) => one.alt)")
    assert shown == list(samples["psnr"].sort_values().index)
    page.get_by_label("Show the", exact=True).select_option("best")
    assert page.locator(".thumbs img").first.get_attribute("alt") == shown[-1]
    assert "its code is no grid of numbers" in page.locator(".below").inner_text()
    page.get_by_label("of", exact=True).select_option(label="pca-f8c4")
    assert page.locator(".strip img").count() == 1
    assert page.locator(".strip img").evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [8, 8]
    assert wrong == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_no_serious_fault(browser: Any, written: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page, _ = opened(browser, written, width, scheme)
    for view in ("Slider", "Side by side", "Difference"):
        page.get_by_role("button", name=view, exact=True).click()
        faults = axe.Axe().run(page).response["violations"]
        assert [one["id"] for one in faults if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_hostile_names_are_shown_as_text(browser: Any, saved: Saved, tmp_path: Path) -> None:
    """Labels and image keys of a record that somebody else wrote."""
    own = read_record(saved.run)
    samples = own.samples()
    keys = dict(zip(samples["key"].unique(), [*HOSTILE, "five", "six"], strict=True))
    keys = {key: name.replace("/", "\u2215") for key, name in keys.items()}  # a key is a file's name
    labels = dict(zip(("bicubic", "pca-f8c4", "jpeg"), HOSTILE, strict=False))
    samples = samples.assign(key=samples["key"].map(keys), decoder=samples["decoder"].map(labels))
    rows = [(result(labels[one.label], n=FEW, **one.metrics), details()) for one in own.data.results]
    data = run_data(rows, command=HOSTILE[0], warnings=(HOSTILE[1],))
    images = tmp_path / "images"
    from harness.files import safe_name

    for old, new in (("reference", "reference"), *((old, safe_name(new)) for old, new in labels.items())):
        (images / new).mkdir(parents=True)
        for key, name in keys.items():
            Image.open(saved.images / old / f"{key}.png").save(images / new / f"{name}.png")
    (tmp_path / "run").mkdir()
    write_samples(tmp_path / "run", samples)
    write_record(tmp_path / "run", data)
    path = tmp_path / "a 'page' & more.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "-o", str(path), "--images", str(images)])
    assert done.exit_code == 0, done.output
    page, wrong = opened(browser, path)
    assert page.evaluate("document.scripts.length") == 2
    assert page.locator("svg[onload], img[onerror]").count() == 0
    assert HOSTILE[0] in page.locator(".verdict").inner_text() + page.locator("#results").inner_text()
    assert set(page.locator(".thumbs img").evaluate_all("(all) => all.map((one) => one.alt)")) >= {r"\u202ecba\u2066", "five"}
    assert wrong == []
    page.close()
