"""The table: columns, best values, missing and infinite values, caveats; the same in the terminal, Markdown and CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pandas as pd
import pytest
from rich.console import Console

from harness.metrics.registry import METRICS
from harness.report.results import Result, best_rows, caveats, count, figures, results_table
from harness.report.table import csv_text, markdown, terminal
from harness.run.figures import LEVEL
from tests.harness.report.rows import result

IDENTITY = result("identity", rfid=0.0, psnr=float("inf"), lpips=0.0, gflops=None, parameters=0, ms_per_image={"1": 0.0001})
BICUBIC = result(
    "bicubic", rfid=90.0, psnr=22.0, gflops=None, parameters=0, ms_per_image={"1": 2.0, "8": 2.0}, trained_on="nothing"
)
VAE = result("vae", intervals={"rfid": [50.0, 70.0]})
STUDENT = result("ms-onestep", rfid=55.0, psnr=24.0, ms_per_image={1: 20.0}, gflops=1234.6)
RESULTS = [IDENTITY, BICUBIC, VAE, STUDENT]


def to_markdown(results: Sequence[Result], demo_datasets: Sequence[str] = ("photos",)) -> str:
    return markdown(results_table(results, demo_datasets=demo_datasets))


def to_csv(results: Sequence[Result]) -> str:
    return csv_text(results_table(results))


def keys(results: Sequence[Result]) -> list[str]:
    return [column.key for column in results_table(results).columns]


def shown(results: Sequence[Result], width: int, title: str = "") -> str:
    stream = io.StringIO()
    Console(width=width, file=stream, force_terminal=False).print(terminal(results_table(results, title), width=width))
    return stream.getvalue()


def cells(markdown: str) -> dict[str, dict[str, str]]:
    """Row name -> header -> cell, of the Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines() if line.startswith("|")]
    return {row[0].strip("`"): dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def test_markdown_has_every_column_with_its_arrow() -> None:
    table = cells(to_markdown(RESULTS))
    assert list(table) == ["identity", "bicubic", "vae", "ms-onestep"]
    assert list(table["vae"]) == [
        "decoder",
        "dataset",
        "n",
        "rFID ↓",
        "KID ↓",
        "PSNR ↑",
        "SSIM ↑",
        "LPIPS ↓",
        "ms/image, batch 1 ↓",
        "ms/image, batch 8 ↓",
        "GFLOPs ↓",
        "Params",
        "Peak MiB ↓",
        "trained on",
    ]


def test_markdown_marks_the_best_and_shows_what_is_missing_or_infinite() -> None:
    table = cells(to_markdown(RESULTS))
    assert table["identity"]["PSNR ↑"] == "∞"
    assert table["identity"]["GFLOPs ↓"] == "–"
    assert table["identity"]["ms/image, batch 1 ↓"] == "<0.001"
    assert table["identity"]["rFID ↓"] == "0.000"  # best of all, not ranked
    assert table["vae"]["rFID ↓"] == "60.0 [50.0, 70.0]"
    assert table["ms-onestep"]["rFID ↓"] == "**55.0**"
    assert table["vae"]["PSNR ↑"] == "**25.00**"
    assert table["bicubic"]["ms/image, batch 1 ↓"] == "2.00"  # no network: does not compete in cost
    assert table["ms-onestep"]["ms/image, batch 1 ↓"] == "**20.0**"
    assert table["ms-onestep"]["GFLOPs ↓"] == "1,235"
    assert table["vae"]["Params"] == "4.00M"


def test_best_is_per_dataset_and_ties_share_it() -> None:
    rows = [result("a", psnr=20.001), result("b", psnr=20.002), result("a", dataset="folder", psnr=30.0)]
    psnr = next(figure for figure in figures(rows) if figure.key == "psnr")
    assert best_rows(psnr, rows) == {0, 1}  # alone in its dataset, nothing is best
    assert best_rows(psnr, [result("a", psnr=None), result("b", psnr=float("nan")), result("c")]) == set()


def test_a_disturbed_time_is_never_best() -> None:
    rows = [result("a", ms_per_image={"1": 1.0}, parameters=1, disturbed=True, gflops=1.0)]
    rows += [result(name, ms_per_image={"1": ms}, parameters=1, gflops=2.0) for name, ms in (("b", 2.0), ("c", 3.0))]
    time, flops = (next(one for one in figures(rows) if one.key == key) for key in ("ms_per_image.1", "gflops"))
    assert (best_rows(time, rows), best_rows(flops, rows)) == ({1}, {0})


def test_caveats_follow_the_results() -> None:
    small = "\n".join(caveats([VAE]))
    assert "not comparable with 50k figures" in small
    assert "smoke test" in small
    large = "\n".join(caveats([result("vae", dataset="imagenet-val", n=50_000)]))
    assert "comparable" not in large
    assert "smoke test" not in large


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_shows_every_decoder_and_figure(width: int) -> None:
    text = shown([*RESULTS, result("ms-diffusion-cascade", ms_per_image={"1": 12345.6})], width, "[photos]")
    for words in ("[photos]", "identity", "ms-diffusion-cascade", "∞", "12,346", "4.00M", "LPIPS ↓", "50k figures"):
        assert words in text
    assert "…" not in text


def test_intervals_stand_below_their_figures_in_80_columns() -> None:
    every = {"rfid": [50.1, 70.2], "kid": [-0.0123, 0.0456], "psnr": [24.11, 25.99], "ssim": [0.701, 0.899]}
    every |= {"lpips": [0.151, 0.249], "spectral": [1.21, 1.39], "latent_error": [0.101, 0.109]}
    rows = [result("ms-diffusion-cascade", intervals=every, spectral=1.3, latent_error=0.105), result("jpeg", spectral=2.0)]
    text = shown(rows, 80)
    lines = text.splitlines()
    (start,) = (index for index, line in enumerate(lines) if "60.0" in line and "cascade" in line)
    assert lines[start + 1].split() == ["[50.1,", "[-0.0123,", "[24.11,", "[0.701,", "[0.151,"]
    assert lines[start + 2].split() == ["70.2]", "0.0456]", "25.99]", "0.899]", "0.249]"]
    assert lines[start + 3].split() == ["jpeg", "60.0", "0.0100", "25.00", "0.800", "0.200"]
    assert "[1.21," in text
    assert "0.109]" in text
    assert "…" not in text


def test_an_interval_of_what_is_never_negative_ends_at_zero() -> None:
    rows = [result("a", intervals={"rfid": [-3.5, 20.0], "lpips": [-0.1, 0.3], "kid": [-0.0123, 0.0456]}), result("b")]
    text = markdown(results_table(rows))
    for shown_as in ("[0.000, 20.0]", "[0.000, 0.300]", "[-0.0123, 0.0456]"):
        assert shown_as in text
    assert ",-3.5," in csv_text(results_table(rows))  # programs get what was estimated


def test_the_note_on_intervals_states_the_level_of_records() -> None:
    (note,) = (note for note in caveats([VAE]) if "interval" in note)
    assert f"{100 * LEVEL:.0f} %" in note
    assert not any("interval" in note for note in caveats([STUDENT]))


def test_later_metrics_have_a_column_only_where_measured() -> None:
    assert not {"spectral", "latent_error", "dists"} & {figure.key for figure in figures(RESULTS)}
    rows = [result("a", spectral=1.3, latent_error=0.1), result("b", spectral=1.2, latent_error=0.2, dists=0.05)]
    table = cells(to_markdown(rows))
    assert {"Spectral dB ↓", "Latent error ↓", "DISTS ↓"} <= set(table["a"])
    assert table["b"]["Spectral dB ↓"] == "**1.20**"
    assert table["a"]["Latent error ↓"] == "0.100"  # encoders may differ: never ranked
    assert table["a"]["DISTS ↓"] == "–"
    assert set(METRICS) <= {figure.key for figure in figures([dict.fromkeys(METRICS, 1.0)])}
    octaves = [result("a", octaves_db={"0": -3.456, "1": 1.0})]
    assert cells(to_markdown(octaves))["a"]["Top octave dB"] == "-3.46"
    assert "top_octave_db" in to_csv(octaves).splitlines()[0].split(",")
    assert any("below blur" in note for note in caveats(octaves))
    assert not any("below blur" in note for note in caveats(rows))


def test_csv_keeps_full_precision_and_batches_apart() -> None:
    frame = pd.read_csv(io.StringIO(to_csv([IDENTITY, VAE, result("x", psnr=25.123456789, parameters=None)])))
    assert list(frame["decoder"]) == ["identity", "vae", "x"]
    assert frame["psnr"][0] == float("inf")
    assert frame["psnr"][2] == 25.123456789
    assert frame["ms_per_image_b1"][1] == 50.0
    assert pd.isna(frame["ms_per_image_b8"][0])
    assert (frame["rfid_low"][1], frame["rfid_high"][1]) == (50.0, 70.0)
    assert "4000000," in to_csv([VAE])
    assert pd.isna(frame["parameters"][2])


def test_csv_carries_the_caveat_of_small_sets_in_its_last_column() -> None:
    frame = pd.read_csv(io.StringIO(to_csv([VAE, result("x", n=9_999), result("y", n=10_000), result("z", n=None)])))
    assert frame.columns[-1] == "caveat"
    assert [isinstance(text, str) and "not comparable with 50k figures" in text for text in frame["caveat"]] == [
        True,
        True,
        False,
        False,
    ]
    assert frame["caveat"][2:].isna().all()


def test_csv_carries_protocol_device_and_dtype_in_every_row() -> None:
    told = [{"protocol_hash": "12e4567890123456", "device": "cuda:1", "dtype": one} for one in ("fp32", "bf16")]
    rows = [{**result("vae"), **told[0]}, {**result("x"), **told[1]}]
    frame = pd.read_csv(io.StringIO(to_csv(rows)), dtype=str)
    assert frame[["protocol_hash", "device", "dtype"]].to_dict("records") == told
    assert list(frame.columns[-4:]) == ["protocol_hash", "device", "dtype", "caveat"]
    assert "cuda" not in to_markdown(rows) + shown(rows, 160)  # the CSV's alone
    assert "dtype" not in to_csv([VAE])  # nor where nothing is known of it


def test_no_results_is_an_empty_table_not_an_error() -> None:
    assert to_markdown([]).startswith("| decoder | dataset |")
    assert to_csv([]).startswith("decoder,dataset,n,")


def test_what_rfid_says_at_this_n_comes_from_the_record() -> None:
    warned = {**VAE, "rfid_infinity": None, "rfid_warning": "biased upwards at n = 16: unknown, and large"}
    assert "biased upwards at n = 16: unknown, and large." in caveats([warned])
    assert not any("biased" in note for note in caveats([{**VAE, "rfid_infinity": 20.0}]))
    assert "rFID∞" in to_markdown([{**VAE, "rfid_infinity": 20.0}])
    assert "rFID∞" not in to_markdown([warned])


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (0, "0"),
        (7, "7"),
        (3_075, "3.1k"),
        (999_400, "999.4k"),
        (999_600, "1.00M"),
        (2_133_000, "2.13M"),
        (1_500_000_000, "1.50G"),
    ],
)
def test_parameters_are_counted_in_a_unit_that_fits(parameters: int, text: str) -> None:
    assert count(parameters) == text


def test_a_label_is_shown_and_changes_no_ranking() -> None:
    rows = [{**IDENTITY, "label": "a:identity"}, {**VAE, "label": "a:vae"}, {**STUDENT, "label": "b:ms-onestep"}]
    (rfid,) = [figure for figure in figures(rows) if figure.key == "rfid"]
    assert best_rows(rfid, rows) == {2}
    assert list(cells(to_markdown(rows))) == ["a:identity", "a:vae", "b:ms-onestep"]
    assert [line.split(",")[0] for line in to_csv(rows).splitlines()[1:]] == ["a:identity", "a:vae", "b:ms-onestep"]


def rated(decoder: str, bits: float, ratio: float | None, **changes: object) -> dict[str, object]:
    rate = {"bits_per_image": bits, "bits_per_pixel": bits / 65536, "kind": "nominal", "codebook_sizes": [], "perplexity": []}
    return result(decoder, rate=rate, rate_ratio=ratio, rate_baseline="vae", **changes)


def test_a_row_of_another_rate_is_marked_and_never_best() -> None:
    rows = [rated("vae", 65536, 1.0), rated("near", 66000, 66000 / 65536, psnr=26.0), rated("wide", 524288, 8.0, psnr=30.0)]
    table = cells(to_markdown(rows))
    assert (table["near"]["PSNR ↑"], table["wide` †"]["PSNR ↑"]) == ("**26.00**", "30.00")
    assert "wide: 8× the bits of vae: not ranked." in "\n".join(caveats(rows))
    assert table["vae"]["Bits /image"] == "65,536 nominal"
    assert pd.read_csv(io.StringIO(to_csv(rows)))["bits_per_pixel"][2] == 8.0
    assert "bits_per_image" not in to_csv([VAE, STUDENT])


def test_many_codebooks_are_summed_up() -> None:
    def codebook(count: int) -> str:
        tokens = {"kind": "tokens", "codebook_sizes": [1024] * count, "perplexity": [500.0 + i for i in range(count)]}
        row = result("rq", rate={"bits_per_image": 1.0, "bits_per_pixel": 1.0, "tokens": 4096, **tokens})
        return str(pd.read_csv(io.StringIO(to_csv([row])))["codebook"][0])

    assert codebook(2) == "perplexity 500 of 1,024, 501 of 1,024; 4,096 tokens"
    assert codebook(8) == "perplexity 500 to 507 of 1,024 (8 codebooks); 4,096 tokens"
