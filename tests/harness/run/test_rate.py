"""Bits an image: nominal, of tokens, of files; what a codebook's use is; tokens agree or not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.jpeg import budget_bytes, fit_to_budget
from harness.errors import MsbenchError
from harness.record.rebuilt import rebuild
from harness.record.record import read_record
from harness.record.run import open_run
from harness.report.results import results_table
from harness.report.table import csv_text, markdown
from harness.verify.built import built_checks
from tests.harness.run.conftest import LightRun
from tests.harness.run.token_decoders import COLOURS, LEVELS, Darker, Grid

BLOCKS = (32 // 8) ** 2
EXACT = {
    "odd-vq": BLOCKS * math.log2(36),
    "odd-fsq": BLOCKS * sum(map(math.log2, LEVELS)),
    "odd-stages": BLOCKS * (math.log2(36) + 3),
    "bicubic": BLOCKS * 3 * 16,
    "odd-series": BLOCKS * 3 * 16,
}


def pictures(light: LightRun) -> torch.Tensor:
    """The ten images of a light run, float32 [10, 3, 32, 32] in [-1, 1]."""
    folder = light("identity", "told").data.config["dataset"]
    paths = [f"{str(folder).removeprefix('folder:')}/n{index:02d}.png" for index in range(10)]
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def test_bits_of_every_kind_of_code(light: LightRun) -> None:
    record = light("odd-vq,odd-fsq,odd-series,odd-stages,bicubic,jpeg,identity", noise_seeds=2)
    rates = {result.label: result.rate for result in record.data.results}
    for label, bits in EXACT.items():
        rate = rates[label]
        assert rate is not None
        assert rate.bits_per_image == pytest.approx(bits, rel=1e-12)
        assert rate.bits_per_pixel == pytest.approx(bits / 32**2, rel=1e-12)
        assert rate.kind == ("nominal" if label in ("bicubic", "odd-series") else "tokens")
    assert rates["identity"] is None
    images = ((pictures(light) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    files = [len(fit_to_budget(image, budget_bytes(32, 32))[0]) for image in images]
    assert rates["jpeg"] is not None
    assert (rates["jpeg"].kind, rates["jpeg"].bits_per_image) == ("files", 8 * np.mean(files))
    assert read_record(record.folder).data == record.data


def test_a_budget_that_is_not_reached_is_marked(light: LightRun) -> None:
    record = light("jpeg@bits_per_pixel=0.0001,jpeg@bits_per_pixel=24,jpeg")
    marks = {row["label"]: row["marks"] for row in record.rows_for_people()}
    assert marks["jpeg@bits_per_pixel=24"] == []
    over = "budget not reached: 10 of 10 images take more bits than it was given"
    assert marks["jpeg@bits_per_pixel=0.0001"] == [over]
    smallest = fit_to_budget(((pictures(light)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), 0)[0]
    assert len(smallest) > budget_bytes(32, 32)  # headers alone
    assert marks["jpeg"] == [over]


def test_the_use_of_codebooks(light: LightRun) -> None:
    images = pictures(light)
    record = light("odd-vq,odd-stages")
    for label in ("odd-vq", "odd-stages"):
        rate = next(result.rate for result in record.data.results if result.label == label)
        assert rate is not None
        shares = np.bincount(Grid().encode(images).flatten().numpy(), minlength=len(COLOURS)) / (10 * BLOCKS)
        used = shares[shares > 0]
        assert rate.perplexity[0] == pytest.approx(float(np.prod(used**-used)))
        assert rate.codebook_sizes == ((36,) if label == "odd-vq" else (36, 8))
        assert rate.tokens == 10 * BLOCKS * len(rate.codebook_sizes)
        assert len(rate.perplexity) == len(rate.codebook_sizes)


def test_tokens_agree_in_place_of_the_latents(light: LightRun) -> None:
    record = light("odd-vq,odd-darker,bicubic")
    rows = {row["label"]: row for row in record.results}
    assert rows["odd-vq"]["token_agreement"] == 1.0
    decoder, images = Darker(), pictures(light)
    tokens = decoder.encode(images)
    again = decoder.encode(((decoder.decode(tokens, None).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1.0)
    assert 0 < rows["odd-darker"]["token_agreement"] < 1
    assert rows["odd-darker"]["token_agreement"] == pytest.approx(float((again == tokens).float().mean()))
    assert rows["bicubic"]["token_agreement"] is None
    assert (rows["odd-vq"]["latent_error"], rows["bicubic"]["latent_error"] is None) == (None, False)
    assert record.data.config["extra_metrics"] == ["token_agreement"]
    assert "token_agreement" not in light("bicubic", "continuous").data.metrics


def test_tables_show_the_rate_and_what_has_another(light: LightRun) -> None:
    record = light("odd-vq,odd-fsq,bicubic,identity")
    table = results_table(record.rows_for_people())
    text = markdown(table)
    assert "| Bits /image | Bits /pixel |" in text
    assert "768 nominal" in text
    assert "Bits, nominal: 16 for each number of continuous latents." in text
    assert "perplexity" in text
    assert "160 tokens" in text
    assert "† bicubic: 9.28× the bits of odd-vq: not ranked." in text
    header, *rows = [line.split(",") for line in csv_text(table).splitlines()]
    assert {"bits_per_image", "bits_per_pixel", "codebook"} <= set(header)
    assert float(rows[2][header.index("bits_per_image")]) == 768
    assert rows[3][header.index("bits_per_image")] == ""
    line = next(line for line in text.splitlines() if line.startswith("| `bicubic`"))
    assert "**" not in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fewer", r"encode gave torch.int64 \[4, 4, 4\] with indices from \d+ to \d+: its codebook has 20"),
        ("floats", r"encode gave torch.float32 \[4, 4, 4\], wanted indices \[B, …\] into codebooks of 36 entries"),
    ],
)
def test_latents_that_are_no_such_indices_are_refused(light: LightRun, name: str, words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        light(f"odd-{name}")


def test_bits_are_counted_again(light: LightRun) -> None:
    record = light("bicubic,odd-vq,jpeg")
    run = open_run(record)
    for result in record.data.results:
        found = {one.number: one for one in built_checks(run, result, rebuild(run, result)) if one.number.startswith("rate.")}
        assert set(found) == (
            set() if result.label == "jpeg" else {f"rate.{name}" for name in ("bits_per_image", "bits_per_pixel", "tokens")}
        )
        assert all(one.agrees for one in found.values())
        changed = replace(result, rate=result.rate and replace(result.rate, bits_per_image=1.0))
        again = [one.agrees for one in built_checks(run, changed, rebuild(run, result)) if one.number == "rate.bits_per_image"]
        assert again == [False] * bool(found)
