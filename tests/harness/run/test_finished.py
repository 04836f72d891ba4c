"""Finished reconstructions: the figures of the run that made them, what is missing, what is refused, sets of many sizes."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from harness import registry
from harness.compare.compare import compare
from harness.cost.cost import CostProtocol
from harness.cost.modes import in_mode
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError, UnknownNameError
from harness.record.record import Record
from harness.record.run import FILE, open_run
from harness.record.schema import SampleCounts
from harness.run import journal, runner
from harness.run.config import RunConfig
from harness.verify.verification import verify
from tests.harness.run.conftest import LightRun
from tests.harness.run.light import LightSuite


@pytest.fixture
def made(light: LightRun, tmp_path: Path) -> Record:
    """A run of `bicubic` over ten images, which it saved as `saved/reference` and `saved/bicubic`."""
    return light("bicubic", "made", save_images=tmp_path / "saved")


@pytest.fixture
def saved(made: Record, tmp_path: Path) -> Path:
    return tmp_path / "saved"


def score(saved: Path, folder: str = "scored", **options: object) -> Record:
    asked = {"as_given": True, "batch_size": 4, "cost": None, "output_dir": saved.parent / folder, **options}
    decoders = asked.pop("decoders", {"bicubic": f"images:{saved / 'bicubic'}"})
    return runner.evaluate(RunConfig(decoders, f"folder:{saved / 'reference'}", **asked))  # type: ignore[arg-type]


def test_figures_are_those_of_the_run_that_made_the_images(made: Record, saved: Path) -> None:
    scored = score(saved)
    columns = made.samples().select_dtypes("float64").columns
    ours, theirs = (one.samples().set_index("key")[columns] for one in (scored, made))
    pd.testing.assert_frame_equal(
        ours, theirs.drop(columns="latent_error").assign(latent_error=np.nan)[columns], rtol=0, atol=1e-12
    )
    for metric in ("psnr", "ssim", "lpips", "spectral", "rfid", "kid"):
        assert scored.results[0][metric] == pytest.approx(made.results[0][metric], abs=1e-12)
    assert scored.results[0]["latent_error"] is None
    assert scored.data.dataset.reference_sha256 == made.data.dataset.reference_sha256
    assert (scored.folder / "sheet.png").is_file()


def test_the_record_says_what_was_scored(made: Record, saved: Path) -> None:
    scored = score(saved)
    protocol, details = scored.data.protocol, scored.data.decoders["bicubic"]
    assert (protocol.dataset, protocol.preprocessing, protocol.resolution) == ("folder", "as-given-v1", 0)
    assert protocol.reconstructions == "finished images"
    assert protocol.hash() != replace(protocol, reconstructions="decoded").hash()
    assert made.data.protocol.reconstructions == "decoded"
    assert scored.results[0]["decoder"] == f"images:{saved / 'bicubic'}"
    assert (details.cost, details.noise.drawn, details.clamped, details.spec.parameters) == (None, False, 0.0, 0)
    files = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (saved / "bicubic").glob("*.png")}
    assert scored.samples().set_index("key")[FILE].to_dict() == files
    lines = "".join(f"{key}\0{files[key]}\n" for key in sorted(files))
    assert details.files_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert made.data.decoders["bicubic"].files_sha256 is None
    assert scored.data.warnings == ()


def test_what_is_missing_on_either_side_is_named_counted_and_left_out(saved: Path, light: LightRun) -> None:
    (saved / "bicubic" / "n03.png").unlink()
    (saved / "bicubic" / "n08.png").rename(saved / "bicubic" / "other.png")
    scored = score(saved, decoders={"bicubic": f"images:{saved / 'bicubic'}", "exact": f"images:{saved / 'reference'}"})
    name = f"images:{saved / 'bicubic'}"
    assert {one.name for one in scored.data.dataset.excluded} == {"n03", "n08"}
    assert all(one.reason == f"no reconstruction in {name}" for one in scored.data.dataset.excluded)
    assert scored.data.dataset.n_samples == SampleCounts(10, 10, 8)
    told = " / ".join(scored.data.warnings)
    assert f"{name}: 2 of 10 images have no reconstruction and are left out: n03.png, n08.png" in told
    assert f"{name}: 1 reconstructions belong to no image: other.png" in told
    assert "2 images left out of every decoder's figures" in told
    assert [row["n"] for row in scored.results] == [8, 8]
    assert all("2 images left out" in " ".join(row["marks"]) for row in scored.results)


def test_nothing_in_common_is_refused_before_anything_is_written(saved: Path) -> None:
    for path in sorted((saved / "bicubic").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(
        MsbenchError, match=r"no name in common \(images n00.png, n01.png, n02.png, …, reconstructions xn00.png, "
    ):
        score(saved)
    assert not (saved.parent / "scored").exists()
    by_order = score(saved, decoders=(f"images:{saved / 'bicubic'}@match=order",))
    assert by_order.results[0]["n"] == 10


def test_a_reconstruction_of_another_size_ends_the_run(saved: Path) -> None:
    with Image.open(saved / "bicubic" / "n05.png") as image:
        image.resize((40, 36)).save(saved / "bicubic" / "n05.png")
    with pytest.raises(MsbenchError, match=r"bicubic, image n05: its reconstruction is 40x36, the image 32x32; sizes must"):
        score(saved, keep_going=True)


def test_files_that_cannot_be_used_are_left_out_and_say_why(saved: Path) -> None:
    folder = saved / "bicubic"
    with Image.open(folder / "n01.png") as image:
        clear = image.copy()
    clear.putalpha(128)
    clear.save(folder / "n01.png")
    (folder / "n02.png").write_bytes((folder / "n02.png").read_bytes()[:200])
    (folder / "n03.png").unlink()
    (folder / "n03.png").symlink_to("nowhere.png")
    (folder / "n04.png").write_bytes(b"")
    shutil.move(folder / "n06.png", saved / "moved.png")
    (folder / "n06.png").symlink_to("../moved.png")
    reasons = {one.name: one.reason for one in score(saved).data.dataset.excluded}
    assert set(reasons) == {"n01", "n02", "n03", "n04"}
    for key, words in {"n01": "transparent", "n02": "damaged", "n03": "No such file", "n04": "empty file"}.items():
        assert reasons[key].startswith(f"reconstruction {key}.png in images:")
        assert words in reasons[key]


def test_jpeg_files_are_warned_of_whatever_they_are_called(saved: Path) -> None:
    for key in ("n01", "n02"):
        with Image.open(saved / "bicubic" / f"{key}.png") as image:
            image.save(saved / "bicubic" / f"{key}.png", "JPEG", quality=95)
    assert "decoder bicubic: 2 images written as JPEG: what that lost counts as theirs" in score(saved).data.warnings


def test_a_run_that_resumes_still_knows_of_them(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PART_IMAGES", 3)
    with Image.open(saved / "bicubic" / "n01.png") as image:
        image.save(saved / "bicubic" / "n01.jpg", quality=95)
    (saved / "bicubic" / "n01.png").unlink()
    (saved / "bicubic" / "n02.png").unlink()
    whole = score(saved, "whole")
    features = LightSuite.inception_features
    calls = []

    def fails(self: LightSuite, images: object) -> object:
        calls.append(1)
        if len(calls) == 3:  # the third batch: the reference's features are cached
            raise MsbenchError("stopped")
        return features(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(LightSuite, "inception_features", fails)
    with pytest.raises(MsbenchError, match="stopped"):
        score(saved, "again")
    again = score(saved, "again", resume=True)
    pd.testing.assert_frame_equal(whole.samples(), again.samples())
    assert whole.data.results == again.data.results
    assert whole.data.warnings == again.data.warnings
    assert again.data.dataset.excluded == whole.data.dataset.excluded


def test_images_of_many_sizes_keep_their_own(light: LightRun, tmp_path: Path) -> None:
    sizes = [(40, 48), (40, 48), (64, 32), (40, 48), (33, 50)]
    for index, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        for name, image in (("reference", pixels), ("mine", pixels // 2)):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "own" / name / f"{index}.png")
    Image.new("RGB", (31, 40)).save(tmp_path / "own" / "reference" / "tiny.png")
    record = score(tmp_path / "own", decoders={"mine": f"images:{tmp_path / 'own' / 'mine'}"})
    values = record.samples().set_index("key")["psnr"]
    for key, value in values.items():
        pair = [np.asarray(Image.open(tmp_path / "own" / name / f"{key}.png")) for name in ("reference", "mine")]
        assert value == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-9)
    assert list(values.index) == ["0", "1", "2", "3", "4"]
    (skipped,) = record.data.dataset.skipped
    assert (skipped.name, skipped.reason) == ("tiny.png", "31x40: sides of 32 to 8192 pixels are possible")
    with Image.open(record.folder / "sheet.png") as sheet:
        assert sheet.width > 2 * 64


def test_beside_other_decoders_the_datasets_protocol_holds(light: LightRun, saved: Path, made: Record) -> None:
    cost = CostProtocol(batch_sizes=(1,), min_calls=1, max_calls=1, max_seconds=0.1)
    both = light(f"jpeg,given=images:{saved / 'bicubic'}", "both", cost=cost, noise_seeds=2)
    assert both.data.status == "complete"
    assert both.data.protocol == replace(made.data.protocol, noise_seeds=2)
    jpeg, given = (both.data.decoders[label] for label in ("jpeg", "given"))
    assert jpeg.cost is not None
    assert given.cost is None
    assert both.results[1]["ms_per_image"] == {}
    assert both.results[1]["gflops"] is None
    assert given.noise.seeds == (0,)
    assert both.results[1]["psnr"] == pytest.approx(made.results[0]["psnr"], abs=1e-12)
    assert both.samples()[FILE].notna().sum() == 10


def test_a_folder_of_keys_stands_in_a_run_alone_and_compares(light: LightRun, saved: Path, made: Record) -> None:
    alone = light(f"given=images:{saved / 'bicubic'}", "alone")
    several = light("jpeg", "several", noise_seeds=2)
    for other in (made, several):
        comparison = compare([(other, None), (alone, None)])
        assert {one.n for one in comparison.comparisons} == {10}
        assert {"psnr", "rfid"} <= {one.metric for one in comparison.comparisons}


def test_what_was_scored_is_verified(saved: Path) -> None:
    found = verify(score(saved).folder)
    assert found.disagreements == []
    agreed = {check.number for check in found.checks if check.agrees}
    assert {"psnr", "rfid", "details.files_sha256", "parameters"} <= agreed


def test_samples_in_npz_files_are_matched_by_order(saved: Path, tmp_path: Path, made: Record) -> None:
    sets = {}
    for name in ("reference", "bicubic"):
        files = sorted((saved / name).glob("*.png"))
        np.savez(tmp_path / f"{name}.npz", np.stack([np.asarray(Image.open(path)) for path in files]))
        sets[name] = tmp_path / f"{name}.npz"
    of_both = runner.evaluate(
        RunConfig(
            (f"images:{sets['bicubic']}",), f"folder:{sets['reference']}", as_given=True, cost=None, output_dir=tmp_path / "npz"
        )
    )
    of_one = score(saved, "one", decoders=(f"images:{sets['bicubic']}",))
    for record in (of_both, of_one):
        assert record.results[0]["psnr"] == pytest.approx(made.results[0]["psnr"], abs=1e-12)
        assert record.results[0]["rfid"] == pytest.approx(made.results[0]["rfid"], abs=1e-12)
    assert of_one.data.dataset.reference_sha256 == made.data.dataset.reference_sha256
    np.savez(sets["bicubic"], np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(MsbenchError, match="3 reconstructions of 10 images cannot be matched by order"):
        score(saved, "few", decoders=(f"images:{sets['bicubic']}",))


def test_two_files_of_one_name_are_refused(saved: Path) -> None:
    shutil.copy(saved / "bicubic" / "n01.png", saved / "bicubic" / "n01.jpg")
    with pytest.raises(MsbenchError, match=r"n01.jpg and n01.png are both called like image n01; keep one of them"):
        score(saved)


def test_saved_images_taken_as_a_whole_are_refused(saved: Path) -> None:
    with pytest.raises(MsbenchError, match=r"bicubic/n00.png and reference/n00.png are both called like image n00"):
        score(saved, decoders=(f"images:{saved}",))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("images:", "name the reconstructions"),
        ("images:{saved}/nothing", "does not exist"),
        ("images:{saved}/empty", r"no image files \(1 files of other kinds\)"),
        ("images:{saved}/bicubic@steps=3", "has no steps"),
        ("images:{saved}/bicubic@checkpoint=x", "has no weights"),
    ],
)
def test_what_cannot_be_opened_is_one_line(saved: Path, name: str, words: str) -> None:
    (saved / "empty").mkdir()
    (saved / "empty" / "notes.txt").write_text("")
    with pytest.raises(MsbenchError, match=words) as caught:
        score(saved, decoders=(name.format(saved=saved),))
    assert "\n" not in str(caught.value)


def test_an_unknown_way_to_match_names_the_known(saved: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'order'"):
        score(saved, decoders=(f"images:{saved / 'bicubic'}@match=ordr",))


def test_features_of_both_sides_are_kept(saved: Path) -> None:
    kept = open_run(score(saved)).features("bicubic")
    assert kept is not None
    assert kept[0].shape == kept[1][0].shape == (10, 48)


def test_networks_give_the_same_of_saved_images(tmp_path: Path) -> None:
    asked = {"cost": None, "batch_size": 3}
    photos = RunConfig(("bicubic",), resolution=64, max_samples=4, output_dir=tmp_path / "made", **asked)  # type: ignore[arg-type]
    made = runner.evaluate(replace(photos, save_images=tmp_path / "saved"))
    scored = score(tmp_path / "saved", batch_size=2)
    for metric in ("psnr", "ssim"):
        assert scored.results[0][metric] == pytest.approx(made.results[0][metric], abs=1e-12)
    for metric in ("lpips", "rfid", "kid"):
        assert scored.results[0][metric] == pytest.approx(made.results[0][metric], rel=1e-6, abs=1e-6)
    comparison = compare([(made, None), (scored, None)])
    assert {one.verdict for one in comparison.comparisons} <= {"no difference shown", "non-inferior within the margin"}
    assert len(comparison.comparisons) == 6  # all but the latent error
    found = verify(scored.folder, tmp_path / "saved")
    assert found.disagreements == []
    agreed = {check.number for check in found.checks if check.agrees}
    assert {"samples.ssim.0", "samples.lpips.0", "features.reference", "dataset.reference_sha256", "rfid"} <= agreed


def test_a_mode_does_nothing_to_finished_images(saved: Path) -> None:
    decoder = registry.build_decoder(f"images:{saved / 'bicubic'}", DecoderOptions())
    assert in_mode(decoder, "cudagraph", torch.device("cpu")) is decoder
    with pytest.raises(MsbenchError, match="finished images have a quality, but no latents, time or FLOPs"):
        decoder.encode(torch.zeros(1, 3, 32, 32))
