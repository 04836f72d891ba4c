"""Latents with noise added, and how coarsely they can be quantised."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from harness.cli import app
from harness.compare.compare import compare
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.explain.sources import Needs, Sources
from harness.metrics.psnr import psnr
from harness.noise import SampleNoise
from harness.record.protocol import Protocol
from harness.record.record import Record
from harness.record.run import open_run
from harness.registry import build_decoder
from harness.report.results import check_columns, results_table
from harness.report.table import csv_text, markdown
from harness.run import latents as latents_module
from harness.run.config import RunConfig, check_config
from harness.run.latents import STEPS, Noisy, by_channel
from harness.run.reconstruct import to_uint8
from tests.harness.run.conftest import LightRun
from tests.harness.run.odd_decoders import Odd
from tests.harness.run.test_rate import pictures


def rates(record: Record) -> dict[str, dict[str, float | str]]:
    """Label -> what is known of its effective rate."""
    rows = {row["label"]: row["rate"] or {} for row in record.results}
    return {
        label: {key: value for key, value in rate.items() if key.startswith("effective") and value is not None}
        for label, rate in rows.items()
    }


def by_hand(name: str, images: Tensor) -> tuple[float, float]:
    """Step and bits of an image, every step tried, by numpy and loops over channels."""
    decoder = build_decoder(name, DecoderOptions())
    latents = decoder.encode(images)
    whole = to_uint8(images)
    channels = latents.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(latents.shape[1], -1)
    best = 0.0, 0.0
    for step in STEPS:
        coarse, bits = np.empty_like(channels), 0.0
        for place, values in enumerate(channels):
            width = step * values.std()
            index = np.round((values - values.mean()) / width)
            coarse[place] = values.mean() + width * index
            bits += math.log2(index.max() - index.min() + 1)
        shape = (latents.shape[1], latents.shape[0], *latents.shape[2:])
        tried = torch.from_numpy(coarse.reshape(shape).transpose(1, 0, 2, 3)).float()
        noise = SampleNoise.for_samples(0, ["a"] * len(images))
        losses = [psnr(to_uint8(decoder.decode(one, noise)), whole).mean() for one in (latents, tried)]
        if losses[0] - losses[1] >= 0.1:
            break
        best = step, bits * latents.shape[2] * latents.shape[3]
    return best


def test_the_effective_rate_is_that_of_the_coarsest_step_that_costs_little(light: LightRun) -> None:
    record = light("bicubic,pca-f8c4", effective_rate=True)
    images = pictures(light)
    for name, found in rates(record).items():
        step, bits = by_hand(name, images)
        assert found["effective_step"] == step
        assert found["effective_bits_per_image"] == pytest.approx(bits, rel=1e-6)
        assert found["effective_bits_per_pixel"] == pytest.approx(bits / 32**2, rel=1e-6)
    assert record.protocol_hash == light("bicubic", "plain").protocol_hash
    assert rates(light("bicubic", "unasked")) == {"bicubic": {}}


def test_decoders_of_one_encoder_share_what_the_first_of_them_needs(light: LightRun) -> None:
    found = rates(light("direct,pca-f8c4,vae,identity,jpeg,odd-vq,odd-series", effective_rate=True, seed=3))
    assert found["vae"] == found["direct"]
    assert (found["vae"]["effective_of"], found["pca-f8c4"]["effective_of"]) == ("direct", "pca-f8c4")
    assert [found[label] for label in ("identity", "jpeg", "odd-vq")] == [{}, {}, {}]
    assert found["odd-series"] == {"effective_of": "odd-series"}  # a sequence, no grid


def test_a_code_that_no_step_leaves_alone_has_no_effective_rate(light: LightRun) -> None:
    """Exact for whole levels, grey for all between them."""
    sharp = Odd(lambda x, me: torch.where((level := (x + 1) * 127.5).sub(level.round()).abs() < 1e-3, x, 0.0))
    assert rates(light({"sharp": sharp}, effective_rate=True))["sharp"] == {"effective_of": "sharp"}  # type: ignore[arg-type]


def test_a_channel_without_spread_takes_no_bits(light: LightRun) -> None:
    class Flat(Odd):
        def encode(self, images: Tensor) -> Tensor:
            return torch.cat([images * 0.5, torch.full_like(images[:, :1], 0.3)], dim=1)

        def decode(self, latents: Tensor, noise: object) -> Tensor:
            return latents[:, :3] * 2.0 * (latents[:, 3:] / 0.3)

    plain = rates(light({"plain": Odd()}, effective_rate=True))["plain"]  # type: ignore[arg-type]
    flat = rates(light({"flat": Flat(latent_channels=4)}, "flat", effective_rate=True))["flat"]  # type: ignore[arg-type]
    assert flat == {**plain, "effective_of": "flat"}
    assert plain["effective_bits_per_image"] > 0  # type: ignore[operator]


def test_tables_show_effective_bits_and_hold_rates_against_them(light: LightRun) -> None:
    record = light("pca-f8c4,jpeg@bits_per_pixel=2,bicubic", effective_rate=True)
    rate = rates(record)["pca-f8c4"]["effective_bits_per_image"]
    assert isinstance(rate, float)
    rows = {row["label"]: row for row in record.results}
    bits = rows["jpeg@bits_per_pixel=2"]["rate"]["bits_per_image"]
    assert rows["jpeg@bits_per_pixel=2"]["rate_ratio"] == bits / rate
    assert rows["bicubic"]["rate_ratio"] == rows["bicubic"]["rate"]["effective_bits_per_image"] / rate
    table = results_table(record.rows_for_people())
    text = markdown(table)
    assert "| Effective bits /image | Effective bits /pixel |" in text
    assert f" {rate:,.0f} |" in text
    assert "Effective bits: of the coarsest uniform quantisation of latents that costs less than 0.1 dB." in text
    header, *lines = [line.split(",") for line in csv_text(table).splitlines()]
    assert float(lines[0][header.index("effective_bits_per_image")]) == pytest.approx(rate)
    assert lines[1][header.index("effective_bits_per_pixel")] == ""
    assert "Effective" not in markdown(results_table(light("bicubic", "plain").rows_for_people()))
    check_columns(["bits_per_image", "effective_bits_per_pixel"], (), ())


def test_noise_has_its_deviation_its_keys_and_a_stream_of_its_own() -> None:
    images = torch.zeros(2, 3, 64, 64)
    decoder, keys, deviation = Odd(), ["a", "b"], torch.tensor([0.1, 0.2, 0.0]).view(3, 1, 1)
    clean, noise = decoder.encode(images), SampleNoise.for_samples(0, keys)
    given = Noisy(decoder, deviation, 0, keys).decode(clean, noise) / 2.0
    assert given.movedim(1, 0).flatten(1).std(dim=1).tolist() == pytest.approx([0.1, 0.2, 0.0], rel=0.03)
    assert not torch.equal(given[0], given[1])
    assert not noise.used
    assert torch.equal(Noisy(decoder, deviation, 0, keys[1:]).decode(clean[1:], noise) / 2.0, given[1:])
    assert not torch.equal(Noisy(decoder, deviation, 1, keys).decode(clean, noise) / 2.0, given)
    own = noise.normal((3, 64, 64), 0) * deviation
    assert abs(float(torch.corrcoef(torch.stack([own.flatten(), (given - clean).flatten()]))[0, 1])) < 0.05


def test_a_run_with_noise_adds_spreads_of_each_channel(light: LightRun) -> None:
    """Exact decoders of latents of any scale lose the same: sigma times the images' own spread, times 2 · 127.5."""
    images = pictures(light)
    sigma, spread = 0.01, (0.5 * images).movedim(1, 0).flatten(1).std(dim=1)
    record = light({"mine": Odd(lambda x, me: x), "wide": Wide()}, "noisy", latent_noise=sigma)  # type: ignore[arg-type]
    expected = float(10 * torch.log10(255**2 / ((sigma * spread * 2 * 127.5) ** 2).mean()))
    for row in record.results:
        # Rounding to levels adds a twelfth to the squared error, clamping at black and white takes some of it.
        assert row["psnr"] == pytest.approx(expected, abs=0.6)
    assert "latents were decoded with noise of 0.01 spreads of each channel added" in record.data.warnings
    alone = light({"mine": Odd(), "wide": Wide()}, "alone", latent_noise=sigma, batch_size=1)  # type: ignore[arg-type]
    assert [row["psnr"] for row in alone.results] == [row["psnr"] for row in record.results]


class Wide(Odd):
    """Latents a hundred times as wide."""

    def encode(self, images: Tensor) -> Tensor:
        return images * 50.0

    def decode(self, latents: Tensor, noise: object) -> Tensor:
        return latents / 50.0


def test_every_decoder_is_measured_under_every_seed(light: LightRun) -> None:
    record = light("bicubic", latent_noise=0.3, noise_seeds=2)
    noise = record.data.decoders["bicubic"].noise
    assert noise.seeds == (0, 1)
    assert noise.per_seed["0"]["psnr"] != noise.per_seed["1"]["psnr"]
    assert record.results[0]["latent_error"] > light("bicubic", "clean").results[0]["latent_error"]


def test_noise_is_part_of_the_protocol_where_there_is_some(light: LightRun) -> None:
    clean, noisy = light("bicubic", "clean"), light("bicubic", "noisy", latent_noise=0.1)
    assert Protocol().hash() == "44136fa355b3678a"  # of the empty object: as before there was noise
    assert clean.protocol_hash != noisy.protocol_hash
    with pytest.raises(MsbenchError, match=r"do not compare: .*latent_noise"):
        compare([(clean, None), (noisy, None)])
    with pytest.raises(Needs, match="a run without --latent-noise"):
        next(Sources(open_run(noisy), "bicubic", None, None, True, None).redone(iter([]), "", {}))


def test_latents_that_take_no_noise_are_refused_before_anything_is_written(light: LightRun) -> None:
    for name in ("jpeg", "identity", "odd-vq", "odd-series"):
        with pytest.raises(MsbenchError, match=f"--latent-noise: the latents of {name} are no grid of numbers"):
            light(f"bicubic,{name}", "refused", latent_noise=0.1)
    assert not (light("bicubic").folder.parent / "refused").exists()


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf, 2e3, True])
def test_sigma_has_its_range(sigma: float) -> None:
    with pytest.raises(MsbenchError, match=r"--latent-noise .*: a number from 0\.0 to 1,000\.0 is wanted"):
        check_config(RunConfig(("bicubic",), latent_noise=sigma))


def test_the_command_line_says_what_is_wrong_in_one_line() -> None:
    result = CliRunner().invoke(app, ["run", "--decoder", "bicubic", "--latent-noise=-1"])
    assert result.exit_code == 2
    assert "--latent-noise -1.0: a number from 0.0 to 1,000.0 is wanted" in result.output


def test_statistics_rest_on_a_hundred_images(light: LightRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_module, "SAMPLES", 3)
    seen: list[int] = []
    monkeypatch.setattr("harness.run.runner.by_channel", lambda sample: seen.append(len(sample)) or by_channel(sample))
    light("bicubic", latent_noise=0.1)
    assert seen == [3]
