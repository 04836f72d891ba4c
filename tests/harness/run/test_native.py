"""Images of many sizes in one run, and texts that are known: padding, protocol, refusals, figures by label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from harness.cli import app
from harness.cost.cost import CostProtocol
from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.metrics.metric import PerImage
from harness.metrics.registry import METRICS
from harness.noise import SampleNoise
from harness.record.record import Record
from harness.registry import build_decoder
from harness.report.results import label_tables
from harness.run import figures, runner
from harness.run.config import RunConfig
from tests.harness.run.conftest import LightRun

SIZES = {"a": (37, 33), "b": (37, 33), "c": (64, 48), "d": (35, 71)}
"""name -> width and height"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "many"
    place.mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(place / f"{name}.png")
    return place


@pytest.fixture
def native(light: LightRun, folder: Path, tmp_path: Path):  # `light` stands in for the networks
    def run(decoders: object, **options: object) -> Record:
        asked = {"resolution": "native", "cost": None, "output_dir": tmp_path / "native", "batch_size": 4, **options}
        return runner.evaluate(RunConfig(decoders, f"folder:{folder}", **asked))  # type: ignore[arg-type]

    return run


def test_every_image_comes_back_in_its_own_size(native, folder: Path, tmp_path: Path) -> None:
    record = native("identity,bicubic", save_images=tmp_path / "saved")
    samples = record.samples()
    assert np.isinf(samples.loc[samples["decoder"] == "identity", "psnr"]).all()
    decoder = build_decoder("bicubic", DecoderOptions())
    for name, (width, height) in SIZES.items():
        original = np.asarray(Image.open(folder / f"{name}.png"))
        assert original.shape == (height, width, 3)
        wide = np.pad(original, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        images = torch.from_numpy(wide).permute(2, 0, 1)[None].float() / 127.5 - 1
        decoded = decoder.decode(decoder.encode(images), SampleNoise.for_samples(0, [name]))
        by_hand = ((decoded.clamp(-1, 1) + 1) * 127.5).round()[0, :, :height, :width].permute(1, 2, 0).byte().numpy()
        assert np.array_equal(np.asarray(Image.open(tmp_path / "saved" / "bicubic" / f"{name}.png")), by_hand)


def test_the_protocol_is_another_one_than_that_of_a_crop(native, light: LightRun, tmp_path: Path) -> None:
    whole = native("identity").data
    crop = native("identity", resolution=33, output_dir=tmp_path / "crop").data
    assert whole.protocol_hash != crop.protocol_hash
    assert (whole.protocol.resolution, whole.protocol.preprocessing, whole.dataset.info.resolution) == (0, "as-given-v1", 0)
    assert "edge repeated" in whole.protocol.padding
    assert whole.config["as_given"] is True
    assert replace(whole.protocol, padding="mirror").hash() != whole.protocol_hash


def test_the_sheet_shows_each_image_without_the_room_beside_it(native, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[tuple[int, ...]]] = []
    monkeypatch.setattr(
        figures, "write_sheet", lambda path, reference, decoded, keys, captions: drawn.append([one.shape for one in reference])
    )
    native("identity")
    assert drawn == [[(height, width, 3) for width, height in SIZES.values()]]


def test_photos_are_whole(native) -> None:
    whole = list(open_dataset(Request("photos", as_given=True)))
    assert len(whole) == 7
    assert {one.key: one.image.shape for one in whole}["astronaut"] == (512, 512, 3)
    assert {one.key: one.image.shape for one in whole}["flower"] == (427, 640, 3)


class Fixed:
    """A tokenizer of one size, or of little memory."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def encode(self, images: Tensor) -> Tensor:
        if images.shape[-1] not in (32, 64, 256):
            raise self.error
        return torch.nn.functional.avg_pool2d(images, 8)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents, scale_factor=8)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("it takes 256 px"), "decoder mine: encode raised ValueError: it takes 256 px"),
        (MemoryError(), r"out of memory with 2 images of 37x33 px, the first a: .*--batch-size.*decoder mine"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory with 2 images of 37x33 px"),
    ],
)
def test_a_size_that_a_decoder_cannot_take_is_one_line(native, error: Exception, words: str) -> None:
    with pytest.raises(MsbenchError, match=words) as caught:
        native({"mine": Fixed(error)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"cost": CostProtocol()}, {"as_given": True, "resolution": 64}, {"allow_upsampling": True}]
)
def test_what_contradicts_native_sizes_is_refused(native, options, tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match="--resolution native"):
        native("identity", **options)
    assert not (tmp_path / "native").exists()


@pytest.mark.parametrize("text", ["nativ", "31", "8193", "64x64", "-64"])
def test_a_resolution_that_is_none_ends_with_2(text: str) -> None:
    found = CliRunner().invoke(app, ["run", "--decoder", "identity", "--resolution", text])
    assert found.exit_code == 2
    assert "native" in found.output


def test_a_metric_of_texts_has_figures_by_label_and_needs_texts(
    light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = PerImage(lambda batch, _: np.array([float(len(text or "")) for text in batch.texts]))
    monkeypatch.setitem(METRICS, "ocr", replace(METRICS["ocr"], load=lambda device, offline: lengths))
    with pytest.raises(MsbenchError, match=r"--extra-metrics ocr needs images whose text is known.*--dataset text"):
        light("identity", extra_metrics="ocr")
    assert not (tmp_path / "run").exists()
    asked = RunConfig("identity", "text", max_samples=12, cost=None, extra_metrics="ocr", output_dir=tmp_path / "text")  # type: ignore[arg-type]
    record = runner.evaluate(asked)
    samples = record.samples()
    texts = {entry.key: len(entry.text or "") for entry in open_dataset(Request("text")).entries}
    assert samples.set_index("key")["ocr"].to_dict() == {key: texts[key] for key in samples["key"]}
    by_label = record.data.decoders["identity"].by_label
    assert by_label == {"ocr": samples.groupby("label")["ocr"].mean().to_dict()}
    (table,) = label_tables({"identity": by_label})
    assert [column.header for column in table.columns] == ["decoder", *by_label["ocr"]]
    assert [cell.value for cell in table.rows[0]] == ["identity", *by_label["ocr"].values()]
