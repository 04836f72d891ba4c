"""The leaderboard: one table a protocol, what is checked, what cannot be read, hostile texts, the folder it is written to."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.record.protocol import Protocol
from harness.record.record import Record, write_record
from harness.report.leaderboard import read_entries, write_page
from harness.report.published import published_rows
from harness.report.results import results_table
from harness.report.table import csv_text, latex
from tests.harness.conftest import MakeRun
from tests.harness.report.test_latex import check_balanced


class Scripts(HTMLParser):
    """What a browser would take for elements: tags, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.scripts += [""] * (tag == "script")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def board(*folders: Path, site: Path) -> dict[str, Any]:
    """The data of the page over these folders."""
    entries, unread = read_entries(folders)
    return data_of(write_page(entries, unread, site))


def data_of(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Scripts(page.read_text(encoding="utf-8")).scripts[0])
    return found


def column(table: dict[str, Any], header: str) -> list[list[str]]:
    (place,) = [place for place, one in enumerate(table["columns"]) if one["header"] == header]
    return [row[place]["shown"] for row in table["rows"]]


def bold(table: dict[str, Any]) -> set[str]:
    """Headers of the columns that have a best row."""
    return {one["header"] for place, one in enumerate(table["columns"]) if any(row[place]["bold"] for row in table["rows"])}


def test_rows_of_one_protocol_share_a_table_and_others_do_not(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "runs" / "a", {"vae": 0.0})
    make_run(tmp_path / "runs" / "b" / "deep", {"vae": 0.1, "mine": 0.2})
    make_run(tmp_path / "runs" / "c", {"other": 0.0}, protocol=Protocol(resolution=128))
    make_run(tmp_path / "runs" / "d", {"other": 0.0}, source="other files")
    tables = board(tmp_path / "runs", site=tmp_path / "site")["tables"]
    assert [column(one["table"], "decoder") for one in tables] == [
        [["vae (runs/a)"], ["vae (runs/b/deep)"], ["mine"]],
        [["other"]],
        [["other"]],
    ]
    assert [bool(bold(one["table"])) for one in tables] == [True, False, False]  # nobody is best alone
    assert [[row["record"] for row in one["rows"]] for one in tables] == [[0, 1, 1], [2], [3]]
    assert len({one["rows"][0]["protocol"] for one in tables}) == 2
    assert tables[0]["rows"][0]["device"] == "cpu: cpu"


def test_times_of_other_machines_are_not_ranked(tmp_path: Path, make_run: MakeRun) -> None:
    calls = {"vae": [30.0] * 12, "mine": [10.0] * 12}
    first = timed(make_run(tmp_path / "runs" / "a", {"vae": 0.0, "mine": 0.1}, calls=calls))
    alone = board(tmp_path / "runs", site=tmp_path / "site")["tables"][0]["table"]
    assert "ms/image, batch 1 ↓" in bold(alone)
    facts = {**first.data.environment, "cpu_model": "another"}
    write_record(tmp_path / "runs" / "b", replace(first.data, environment=facts))
    (one,) = board(tmp_path / "runs", site=tmp_path / "site")["tables"]
    assert not any("ms/image" in one["header"] for one in one["table"]["columns"])
    assert "Times and memory are left out: of several machines or settings." in one["table"]["notes"]
    assert {row["device"] for row in one["rows"]} == {"cpu: cpu", "cpu: another"}
    assert "LPIPS ↓" in bold(one["table"])


def timed(record: Record) -> Record:
    """The record with times in its rows, as a run with cost has them."""
    rows = tuple(replace(row, ms_per_image={"1": 30.0 - 20 * at}) for at, row in enumerate(record.data.results))
    return write_record(record.folder, replace(record.data, results=rows))


def test_metrics_of_another_definition_do_not_share_a_table(tmp_path: Path, make_run: MakeRun) -> None:
    record = make_run(tmp_path / "runs" / "a", {"vae": 0.0})
    psnr = replace(record.data.metrics["psnr"], definition="psnr-v9")
    write_record(tmp_path / "runs" / "b", replace(record.data, metrics={**record.data.metrics, "psnr": psnr}))
    assert len(board(tmp_path / "runs", site=tmp_path / "site")["tables"]) == 2


def test_published_figures_stand_apart(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "a", {"vae": 0.0})
    data = board(tmp_path / "a", site=tmp_path / "site")
    assert "never ranked" in data["published"]["title"]
    assert len(data["published"]["rows"]) == len(published_rows())
    assert not bold(data["published"])
    assert [len(one["rows"]) for one in data["tables"]] == [1]


def checks(data: dict[str, Any]) -> set[str]:
    return {shown[0] for one in data["tables"] for shown in column(one["table"], "check")}


def test_only_what_verify_said_of_this_very_record_counts(tmp_path: Path, make_run: MakeRun) -> None:
    folder, site = tmp_path / "a", tmp_path / "site"
    record = make_run(folder, {"vae": 0.0})
    told = folder / "verify.json"
    good = {"record_sha256": sha256_file(folder / "record.json"), "status": "verified", "summary": "verified"}

    def said(content: object) -> set[str]:
        told.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return checks(board(folder, site=site))

    assert checks(board(folder, site=site)) == {"not checked"}
    assert said(good) == {"self-consistent"}
    assert "verified" not in (site / "index.html").read_text(encoding="utf-8").lower()
    assert said({**good, "status": "disagrees"}) == {"disagrees with itself"}
    counts = "3 numbers agree, 0 disagree, 2 not checked"
    assert said({**good, "summary": counts}) == {"self-consistent"}
    assert f"self-consistent ({counts})" in (site / "index.html").read_text(encoding="utf-8")
    for content in ("", "{", "[" * 10_000, [good], {}, {**good, "record_sha256": "0" * 64}, {**good, "status": ["verified"]}):
        assert said(content) == {"not checked"}
    told.unlink()
    (tmp_path / "elsewhere.json").write_text(json.dumps(good))
    told.symlink_to(tmp_path / "elsewhere.json")
    assert checks(board(folder, site=site)) == {"not checked"}
    told.unlink()
    assert said(good) == {"self-consistent"}
    write_record(folder, replace(record.data, warnings=("changed",)))
    assert checks(board(folder, site=site)) == {"not checked"}


def test_verify_writes_what_the_leaderboard_reads(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "a", {"jpeg": 0.0})
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "a"), "--json"])
    assert json.loads(done.stdout)["record_sha256"] == sha256_file(tmp_path / "a" / "record.json")
    (tmp_path / "a" / "verify.json").write_text(done.stdout)
    wanted = {0: "self-consistent", 1: "disagrees with itself"}[done.exit_code]
    assert checks(board(tmp_path / "a", site=tmp_path / "site")) == {wanted}


def test_where_a_row_comes_from_is_told(tmp_path: Path, make_run: MakeRun) -> None:
    record = make_run(tmp_path / "a", {"vae": 0.0}, spec={"vae": {"weights_sha256": "ab" * 32}})
    write_record(record.folder, replace(record.data, command="msbench run --decoder vae --data-dir /home/me/secret/data"))
    (tables,) = board(tmp_path / "a", site=tmp_path / "site")["records"]
    text = json.dumps(tables)
    for words in (
        sha256_file(tmp_path / "a" / "record.json"),
        "ab" * 32,
        "msbench run --decoder vae",
        "…/data".encode("unicode_escape").decode(),
    ):
        assert words in text
    assert "environment.cpu_model" in text


def test_a_place_on_somebody_s_disk_is_not_published(tmp_path: Path, make_run: MakeRun) -> None:
    record = make_run(tmp_path / "a", {"vae": 0.0})
    info = replace(record.data.dataset.info, name="folder:/home/me/imagenet-val")
    rows = tuple(replace(row, dataset=info.name) for row in record.data.results)
    write_record(record.folder, replace(record.data, dataset=replace(record.data.dataset, info=info), results=rows))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "record.json").write_text("{")
    site = tmp_path / "site"
    data = board(tmp_path, site=site)
    assert data["tables"][0]["table"]["title"].startswith("folder:imagenet-val, 256 px")  # nor taken for the real one
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "/home/me" not in text
    assert str(tmp_path) not in text


def spoilt(folder: Path, record: Record, **changes: Any) -> None:
    """A copy of the record whose JSON has other values; those that are None are gone."""
    content = {**record.as_json(), **changes}
    folder.mkdir(parents=True)
    text = json.dumps({key: value for key, value in content.items() if value is not None or key not in changes})
    (folder / "record.json").write_text(text)


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path: Path, make_run: MakeRun) -> None:
    runs = tmp_path / "runs"
    record = make_run(runs / "good", {"vae": 0.0})
    write_record(runs / "running", replace(record.data, status="running", results=(), decoders={}))
    write_record(runs / "shard", replace(record.data, status="shard"))
    spoilt(runs / "no machine", record, environment={})
    spoilt(runs / "odd machine", record, environment={**record.data.environment, "git": "main"})
    spoilt(runs / "no details", record, decoders={})
    spoilt(runs / "no protocol", record, protocol=None)
    spoilt(runs / "other hash", record, protocol_hash="deadbeefdeadbeef")
    (runs / "twice").mkdir()
    (runs / "twice" / "record.json").write_bytes((runs / "good" / "record.json").read_bytes())
    praised = replace(record.data.results[0], metrics={"psnr": 99.0}, intervals={"psnr": (20.0, 22.0)})
    write_record(runs / "praised", replace(record.data, results=(praised,)))
    (runs / "bytes").mkdir()
    (runs / "bytes" / "record.json").write_bytes(b"\xff\xfe")
    (runs / "linked").mkdir()
    (runs / "linked" / "record.json").symlink_to(runs / "good" / "record.json")
    (runs / "away").symlink_to(runs / "good")
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "record.json")
    done = CliRunner().invoke(app, ["leaderboard", str(runs), str(runs / "good"), "-o", str(tmp_path / "site"), "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    reasons = document["unread"]
    assert document["records"] == 1
    assert set(reasons) == {
        f"runs/{name}"
        for name in (
            *("running", "shard", "no machine", "odd machine", "no details", "no protocol", "bytes"),
            *("other hash", "twice", "praised"),
        )
    }
    assert "is the same record as runs/good" in reasons["runs/twice"]
    assert "psnr of vae lies outside its own interval" in reasons["runs/praised"]
    assert "protocol_hash is not that of its protocol" in reasons["runs/other hash"]
    assert "its status is running" in reasons["runs/running"]
    assert "protocol: Field required" in reasons["runs/no protocol"]
    assert all(f"warning: {place} is left out: " in done.stderr for place in reasons)
    data = data_of(tmp_path / "site" / "index.html")
    assert [column(one["table"], "decoder") for one in data["tables"]] == [[["vae"]]]
    assert {shown[0] for shown in column(data["unread"], "record")} == set(reasons)
    clean = CliRunner().invoke(app, ["leaderboard", str(runs / "good"), "-o", str(tmp_path / "site")])
    assert clean.exit_code == 0, clean.output
    assert data_of(tmp_path / "site" / "index.html")["unread"] is None


def test_no_record_is_bad_input_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for folder, words in {"runs": "no record.json below", "gone": "is no folder"}.items():
        with pytest.raises(MsbenchError, match=words):
            read_entries([tmp_path / folder])
        done = CliRunner().invoke(app, ["leaderboard", str(tmp_path / folder), "-o", str(tmp_path / "site")])
        assert done.exit_code == 2
    assert not (tmp_path / "site").exists()


def test_the_site_s_page_is_replaced_and_nothing_else(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "a", {"vae": 0.0})
    site = tmp_path / "site"
    (site / "img").mkdir(parents=True)
    for name in ("CNAME", "img/logo.png", "index.html"):
        (site / name).write_text(name)
    entries, unread = read_entries([tmp_path / "a"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            write_page(entries, unread, site)
    assert (site / "index.html").read_text() == "index.html"
    write_page(entries, unread, site)
    assert {path.relative_to(site).as_posix() for path in site.rglob("*")} == {"CNAME", "img", "img/logo.png", "index.html"}
    assert [(site / name).read_text() for name in ("CNAME", "img/logo.png")] == ["CNAME", "img/logo.png"]
    assert data_of(site / "index.html")["tables"]


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    '"\'><b onclick="x">&amp;',
    "javascript:alert(1)",
    "\u202egnp.exe\u2066\u200f",
    "=cmd|' /C calc'!A0",
    "line\nend\r\x1b[31m\x00",
    "\u2028{{ 7 * 7 }}{% raw %}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_from_outside_are_inert(text: str, tmp_path: Path, make_run: MakeRun) -> None:
    name = re.sub(r"[\x00/]", "_", text)
    record = make_run(tmp_path / name, {text: 0.0, "vae": 0.0}, spec={text: {"trained_on": text, "weights_sha256": text}})
    info = replace(record.data.dataset.info, note=text, name=f"folder:{text}")
    facts = {**record.data.environment, "cpu_model": text, "packages": {text: text}}
    rows = tuple(replace(row, trained_on=text, dataset=info.name) for row in record.data.results)
    dataset = replace(record.data.dataset, info=info)
    write_record(record.folder, replace(record.data, command=text, dataset=dataset, environment=facts, results=rows))
    (tmp_path / f"bad {name}").mkdir()
    (tmp_path / f"bad {name}" / "record.json").write_text(json.dumps({"schema_version": text}))
    page = tmp_path / "site" / "index.html"
    data = board(tmp_path, site=page.parent)
    whole = page.read_text(encoding="utf-8")
    parsed = Scripts(whole)
    assert parsed.tags == [
        "html",
        "head",
        "meta",
        "meta",
        "meta",
        "meta",
        "title",
        "style",
        "body",
        "noscript",
        "p",
        "main",
        "script",
        "script",
    ]
    assert "<" not in parsed.scripts[0]
    assert whole.isprintable() or not re.search("[\x00-\x08\x0b-\x1f\u200e\u200f\u2028-\u202e\u2066-\u2069]", whole)
    assert not re.search("[\x00-\x1f\u200f\u2028\u202e\u2066]", json.dumps(data, ensure_ascii=False))
    assert "49" not in [shown[0] for shown in column(data["tables"][0]["table"], "decoder")]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', whole)
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    table = results_table(record.rows_for_people())
    for line in csv.reader(io.StringIO(csv_text(table))):
        assert not any(cell.startswith(("=", "+", "-", "@")) and not re.fullmatch(r"-?[\d.e-]+|-?inf", cell) for cell in line)
        assert not re.search("[\x00-\x1f\u200f\u202e]", "".join(line))
    check_balanced(latex(table))


def test_nothing_is_fetched() -> None:
    from harness.report.page import ASSETS

    for name in ("leaderboard.js", "table.js", "page.css"):
        text = (ASSETS / name).read_text(encoding="utf-8")
        assert not re.search(
            r"fetch\(|XMLHttp|import\(|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|@import|url\(", text
        )
