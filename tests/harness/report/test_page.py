"""The HTML page: one file, one JSON, nothing fetched, hostile text inert; the tables, verdict and images it holds."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.errors import MsbenchError, UnknownNameError
from harness.record.record import Record, read_record
from harness.report import page, tiles
from harness.report.page import ASSETS, render, report_document, table_document
from harness.report.table import Cell, Column, Table, listing
from tests.harness.conftest import MakeRun
from tests.harness.explain.conftest import FEW, Saved, make_run

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "</script><!--",
    "\u202egnp.exe\u2028next\u2029line",
    "a&amp;b\x1b[31m",
)
SCRIPTS = ("table.js", "report.js")


class Parsed(HTMLParser):
    """Elements of a page with their attributes, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def of(self, name: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for (tag, attributes), text in zip(self.elements, self.texts, strict=True) if tag == name]

    @property
    def data(self) -> Any:
        ((_, text),) = [one for one in self.of("script") if one[0].get("type") == "application/json"]
        return json.loads(text)


def silent(stage: str, done: int, total: int) -> None:
    pass


def document(*records: Record, **options: Any) -> dict[str, Any]:
    usual = {"baseline": None, "images": (), "redo": False, "progress": silent}
    return report_document([(record, None) for record in records], **{**usual, **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A run of `jpeg` and `bicubic` over six images, with them saved; the networks are stand-ins."""
    from tests.harness.run.light import LightSuite

    return make_run(tmp_path_factory.mktemp("page"), "jpeg,bicubic", LightSuite, FEW)


def test_the_page_is_one_file_with_one_json_and_fetches_nothing(saved: Saved) -> None:
    found = document(read_record(saved.run))
    html = render(found["about"], found, SCRIPTS)
    parsed = Parsed(html)
    assert parsed.data == json.loads(json.dumps(found))
    assert {"src", "href", "srcset", "background", "action"} & {name for _, had in parsed.elements for name in had} == set()
    without_data = html.replace(parsed.of("script")[0][1], "")
    assert set(re.findall(r"https?://[^\s\"']+", without_data)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xhtml",
    }
    assert "http" not in json.dumps(found["images"])


def test_the_policy_names_the_hash_of_each_style_and_script_and_allows_nothing_else(saved: Saved) -> None:
    parsed = Parsed(render("x", document(read_record(saved.run)), SCRIPTS))
    (policy,) = [had["content"] for had, _ in parsed.of("meta") if had.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    inline = [text for had, text in parsed.of("script") if had.get("type") is None]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (*inline, parsed.of("style")[0][1])]
    assert (len(inline), len(hashes)) == (1, 2)
    assert rules.pop("script-src") == f"'sha256-{hashes[0]}'"
    assert rules.pop("style-src") == f"'sha256-{hashes[1]}'"
    assert rules.pop("img-src") == "data:"
    assert set(rules.values()) == {"'none'"}
    assert "default-src" in rules


def test_hostile_names_are_text_in_the_json_and_nowhere_else(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run(tmp_path / "run", {"base": 0.0, **dict.fromkeys(HOSTILE, 0.2)})
    found = document(record)
    html = render(f"{HOSTILE[0]} {HOSTILE[3]}", found, SCRIPTS)
    parsed = Parsed(html)
    assert [tag for tag, _ in parsed.elements].count("script") == 2
    assert not [had for tag, had in parsed.elements if tag == "img" or any(name.startswith("on") for name in had)]
    assert "alert(1)</script>" not in html
    assert html.isascii() or not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x1b]", html)
    names = [row[0]["value"] for row in parsed.data["tables"][0]["rows"]]
    assert names[1] == HOSTILE[0]
    assert names[4] == r"\u202egnp.exe\u2028next\u2029line"
    assert names[5] == r"a&amp;b\x1b[31m"


def test_scripts_make_elements_and_text_alone() -> None:
    for name in SCRIPTS:
        text = (ASSETS / name).read_text(encoding="utf-8")
        assert text.startswith("// @ts-check")
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "fetch(",
            "XMLHttp",
        ):
            assert word not in text, f"{name}: {word}"
        if node := shutil.which("node"):
            assert subprocess.run([node, "--check", ASSETS / name], check=False).returncode == 0


def test_a_table_keeps_values_shown_texts_and_order() -> None:
    columns = [
        Column("name\nof it", "name", code=True),
        Column("PSNR ↑", "psnr", True),
        Column(key="psnr_low"),
        Column("empty", "e"),
    ]
    cells = [
        [Cell("b\n"), Cell(math.inf, ("∞",), True), Cell(1.5), Cell(None)],
        [Cell("a"), Cell(math.nan), Cell(None), Cell(None)],
    ]
    found = table_document(Table(columns, cells, "A title", ["a note\x07"]))
    assert [one["header"] for one in found["columns"]] == ["name of it", "PSNR ↑", "", ""]
    assert [one["key"] for one in found["columns"]] == ["name", "psnr", "psnr_low", "e"]
    assert found["rows"][0][0] == {"value": r"b\n", "shown": [r"b\n"], "bold": False}
    assert found["rows"][0][1] == {"value": float(np.finfo(float).max), "shown": ["∞"], "bold": True}
    assert found["rows"][1][1]["value"] is None
    assert found["notes"] == [r"a note\x07"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_rows_of_another_rate_are_named_and_never_called_better(make_run: MakeRun, tmp_path: Path) -> None:
    shifts = {"base": 0.0, "worse": -0.5, "same": 0.0, "rich": 0.9}
    record = make_run(tmp_path / "run", shifts, bits={"base": 100.0, "worse": 100.0, "same": 100.5, "rich": 300.0})
    verdict = document(record)["verdict"]
    text = "".join(verdict)
    assert verdict[1::2] == ["base", "worse", "same", "rich"]
    assert text.startswith("On 60 images of photos, held against base by paired differences: worse is ")
    assert text.endswith("; of another rate and so not ranked: rich (3× the bits).")
    assert "rich is" not in text
    assert "better" not in text.partition("same is ")[2].partition(";")[0]
    points = {one["name"]: one["ranked"] for one in document(record)["points"]}
    assert points == {"base": True, "worse": True, "same": True, "rich": False}


def test_a_named_baseline_counts_and_an_unknown_one_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run(tmp_path / "run", {"one": 0.0, "two": 0.5})
    assert document(record, baseline="two")["verdict"][1] == "two"
    with pytest.raises(UnknownNameError, match="twoo"):
        document(record, baseline="twoo")


def test_a_single_row_is_held_against_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    found = document(make_run(tmp_path / "run", {"alone": 0.0}))
    assert "".join(found["verdict"]).startswith("On 60 images of photos: alone has PSNR ")
    assert "it is held against no other row" in found["verdict"][2]


def test_provenance_names_weights_protocol_and_machine_of_every_run_and_no_folder(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", {"one": 0.0}, spec={"one": {"weights_sha256": "w" * 64}})
    second = make_run(tmp_path / "second", {"two": 0.1}, seed=1)
    found = document(first, second)
    weights, facts = found["provenance"]
    assert weights["rows"][0][4]["value"] == "w" * 64
    assert [one["header"] for one in facts["columns"]] == ["fact", "first (1)", "second (2)"]
    values = {row[0]["value"]: [cell["value"] for cell in row[1:]] for row in facts["rows"]}
    assert values["protocol_hash"] == [first.protocol_hash, second.protocol_hash]
    assert values["environment.torch"] == ["2", "2"]
    assert values["setting.dtype"] == ["fp32", "fp32"]
    assert str(tmp_path) not in json.dumps(found)


def test_runs_without_saved_images_say_how_to_get_them(make_run: MakeRun, tmp_path: Path) -> None:
    assert "--save-images" in document(make_run(tmp_path / "run", {"one": 0.0}))["images"]["reason"]


def decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(BytesIO(base64.b64decode(body)))


def test_tiles_are_the_saved_images_nearly(saved: Saved) -> None:
    images = document(read_record(saved.run))["images"]
    assert images["n"] == len(images["keys"]) == FEW
    assert sorted(images["keys"]) == sorted(path.stem for path in (saved.images / "reference").glob("*.png"))
    for key, row in zip(images["keys"], images["tiles"], strict=True):
        for group, uri in zip(("reference", "jpeg", "bicubic"), row, strict=True):
            exact = np.asarray(Image.open(saved.images / group / f"{key}.png"), dtype=float)
            assert np.abs(np.asarray(decoded(uri), dtype=float) - exact).mean() < 6.0


def test_ranks_count_from_the_worst_value_of_the_samples(saved: Saved) -> None:
    record = read_record(saved.run)
    images = document(record)["images"]
    samples = record.samples().query("decoder == 'jpeg'").set_index("key")
    by_title = {one["title"]: one["rows"][0] for one in images["metrics"]}
    for title, column, worst_first in (("PSNR ↑", "psnr", True), ("LPIPS ↓", "lpips", False)):
        wanted = list(samples[column].sort_values(ascending=worst_first).index)
        assert [wanted.index(key) + 1 for key in images["keys"]] == by_title[title]["ranks"]


def test_the_number_of_tiles_and_their_bytes_are_bounded(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_record(saved.run)
    monkeypatch.setattr(tiles, "TILES", 11)
    assert len(document(record)["images"]["keys"]) == 3  # of three tiles each
    monkeypatch.setattr(tiles, "BYTES", 1)
    assert len(document(record)["images"]["keys"]) == 1


def test_other_images_than_the_runs_are_told_or_refused(saved: Saved, tmp_path: Path) -> None:
    record, other = read_record(saved.run), tmp_path / "images"
    shutil.copytree(saved.images, other)
    for path in (other / "jpeg").glob("*.png"):
        Image.new("RGB", Image.open(path).size).save(path)
    with pytest.raises(MsbenchError, match="is not the image of the run"):
        document(record, images=[other])
    shutil.rmtree(other / "jpeg")
    with pytest.raises(MsbenchError, match="--save-images"):
        document(record, images=[other])
    with pytest.raises(MsbenchError, match="--images"):
        document(record, images=[tmp_path])


def test_codecs_have_no_latents_and_without_redo_the_page_says_what_to_pass(saved: Saved) -> None:
    record = read_record(saved.run)
    assert ["--redo" in one["reason"] for one in document(record)["images"]["redone"]] == [True, True]
    jpeg, bicubic = document(record, redo=True)["images"]["redone"]
    assert jpeg["reason"] == "its code is no grid of numbers"
    assert [decoded(one).size for one in bicubic["latents"]] == [(8, 8)] * FEW
    assert bicubic["scales"] is None


def test_principal_components_find_the_axes_of_most_variance() -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    wide, narrow = torch.randn(2, 1, 6, 6, generator=generator) * torch.tensor([100.0, 1.0])[:, None, None, None]
    latents = [torch.cat([narrow, wide, torch.zeros(1, 6, 6)])]
    red = np.asarray(decoded(tiles._principal(latents)[0]), dtype=float)[..., 0]
    assert abs(np.corrcoef(red.ravel(), wide.numpy().ravel())[0, 1]) > 0.95


def test_a_listing_of_text_alone_is_a_table_too() -> None:
    assert table_document(listing(["a"], [["x"]]))["rows"] == [[{"value": "x", "shown": ["x"], "bold": False}]]
    assert page.ASSETS.is_dir()
