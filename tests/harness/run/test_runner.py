"""One run end to end: agreement with the reference packages, independence of batch size, reproducibility."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.cost.cost import CostProtocol
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.metrics.registry import PER_IMAGE
from harness.record.record import Record, read_record
from harness.record.run import open_run
from harness.record.schema import SampleCounts
from harness.registry import build_decoder
from harness.run.config import RunConfig
from harness.run.reconstruct import to_uint8
from harness.run.runner import evaluate
from harness.stats.rfid import rfid_value

LEARNED = "ms-onestep"


def run(folder: Path, *decoders: str, batch_size: int = 8, max_samples: int | None = None, save: bool = False) -> Record:
    return evaluate(
        RunConfig(
            decoders=decoders,
            output_dir=folder / "run",
            save_images=folder / "images" if save else None,
            batch_size=batch_size,
            max_samples=max_samples,
            cost=None,
        )
    )


def pngs(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    folder = tmp_path_factory.mktemp("full")
    return run(folder, "bicubic", LEARNED, save=True), folder / "images"


def test_metrics_equal_the_reference_packages(full_run: tuple[Record, Path], tmp_path: Path) -> None:
    import lpips
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from torch_fidelity import calculate_metrics

    from harness.metrics.inception import torch_fidelity_state_dict
    from harness.metrics.lpips import Lpips

    record, images = full_run
    weights = tmp_path / "inception.pth"
    torch.save(torch_fidelity_state_dict(), weights)
    distance = lpips.LPIPS(pretrained=True, net="alex", pnet_rand=True, verbose=False)
    distance.load_state_dict(Lpips.load("alex").network.state_dict())
    reference = pngs(images / "reference")
    for row in record.results:
        decoded = pngs(images / row["decoder"])
        assert decoded.keys() == reference.keys()
        expected = {
            "rfid": calculate_metrics(
                input1=str(images / "reference"),
                input2=str(images / row["decoder"]),
                cuda=False,
                fid=True,
                verbose=False,
                cache=False,
                feature_extractor_weights_path=str(weights),
            )["frechet_inception_distance"],
            "psnr": np.mean([peak_signal_noise_ratio(reference[key], decoded[key], data_range=255) for key in reference]),
            "ssim": np.mean(
                [
                    structural_similarity(
                        reference[key],
                        decoded[key],
                        gaussian_weights=True,
                        sigma=1.5,
                        use_sample_covariance=False,
                        data_range=255,
                        channel_axis=-1,
                    )
                    for key in reference
                ]
            ),
            "lpips": np.mean([distance(signed(reference[key]), signed(decoded[key])).item() for key in reference]),
        }
        for metric, value in expected.items():
            assert row[metric] == pytest.approx(value, rel=1e-3), (row["decoder"], metric)


def signed(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_saved_images_are_what_the_metrics_saw(full_run: tuple[Record, Path]) -> None:
    record, images = full_run
    reference = pngs(images / "reference")
    samples = record.samples()
    for row in record.results:
        decoded = pngs(images / row["decoder"])
        values = samples[samples["decoder"] == row["decoder"]].set_index("key")["psnr"]
        for key in reference:
            error = np.mean((reference[key].astype(float) - decoded[key].astype(float)) ** 2)
            assert values[key] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)


def test_batch_size_changes_nothing_but_rounding(tmp_path: Path) -> None:
    runs = {size: run(tmp_path / str(size), LEARNED, batch_size=size, max_samples=9, save=True) for size in (1, 7, 32)}
    images = {size: np.stack(list(pngs(tmp_path / str(size) / "images" / LEARNED).values())).astype(int) for size in runs}
    for size in (7, 32):
        difference = np.abs(images[1] - images[size])
        assert difference.max() <= 1
        assert np.mean(difference > 0) <= 1e-3
        for metric in ("rfid", "psnr", "ssim", "lpips"):
            assert runs[size].results[0][metric] == pytest.approx(runs[1].results[0][metric], rel=1e-3)


def test_one_seed_twice_is_identical(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, LEARNED, max_samples=4) for name in ("a", "b"))
    assert first.results == second.results
    assert first.samples().equals(second.samples())


def test_record_is_complete_and_reads_back(full_run: tuple[Record, Path]) -> None:
    record, _ = full_run
    again = read_record(record.folder)
    assert again.data == record.data
    assert record.data.dataset.n_samples == SampleCounts(15, 15, 15)
    assert len(record.samples()) == 15 * len(record.results)
    assert (record.folder / "sheet.png").is_file()
    document = record.document()
    assert {"schema_version", "status", "protocol_hash", "results", "warnings"} == set(document)
    keys = (
        "label decoder options dataset n rfid kid psnr ssim lpips spectral latent_error intervals noise_spread octaves_db "
        "rfid_infinity ms_per_image gflops parameters peak_memory_mb trained_on disturbed time_estimated marks rfid_warning "
        "rate rate_ratio rate_baseline protocol_hash device dtype"
    )
    assert set(keys.split()) == set(document["results"][0])
    json.dumps(document, allow_nan=False)


def test_record_holds_intervals_and_what_they_rest_on(full_run: tuple[Record, Path]) -> None:
    record, _ = full_run
    for row in record.results:
        assert set(row["intervals"]) == {*PER_IMAGE, "rfid", "kid"}
        for metric, (low, high) in row["intervals"].items():
            assert low < row[metric] < high, metric
        details = record.data.decoders[row["label"]]
        assert details.interval_notes["rfid"].units == record.samples()["source_photo"].nunique()
        assert "unknown, and large" in (details.rfid_warning or "")
        assert "not comparable with 50k" in (details.rfid_warning or "")
        assert row["rfid_infinity"] is details.rfid_infinity is None  # of 15 images
        references, decoded = open_run(record).features(row["decoder"]) or (None, [])
        assert references is not None
        assert references.shape == decoded[0].shape == (15, 2048)
        assert rfid_value(references, decoded[0]) == pytest.approx(row["rfid"], rel=1e-6)


def test_latent_error_is_that_of_the_encoder(full_run: tuple[Record, Path]) -> None:
    record, images = full_run
    decoder = build_decoder(LEARNED, DecoderOptions())
    samples = record.samples()
    values = samples[samples["decoder"] == LEARNED].set_index("key")["latent_error"]
    key = values.index[0]
    with torch.inference_mode():
        wanted, again = (decoder.encode(signed(pngs(images / name)[key])) for name in ("reference", LEARNED))
    assert values[key] == pytest.approx(float((again - wanted).norm() / wanted.norm()), rel=1e-4)


def test_noise_seeds_are_averaged_and_their_spread_kept(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    config = RunConfig((LEARNED, "bicubic"), f"folder:{tmp_path / 'images'}", resolution=64, cost=None)
    both = evaluate(replace(config, noise_seeds=2, seed=5, output_dir=tmp_path / "both"))
    single = [evaluate(replace(config, seed=seed, output_dir=tmp_path / str(seed))) for seed in (5, 6)]
    learned, bicubic = both.results
    for metric in ("psnr", "lpips", "rfid"):
        values = [one.results[0][metric] for one in single]
        assert values[0] != values[1]
        assert learned[metric] == pytest.approx(np.mean(values), rel=1e-6)
        assert learned["noise_spread"][metric] == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    assert set(bicubic["noise_spread"].values()) == {0.0}
    samples = both.samples()
    assert sorted(samples[samples["decoder"] == LEARNED]["noise_seed"].unique()) == [5, 6]
    assert sorted(samples[samples["decoder"] == "bicubic"]["noise_seed"].unique()) == [5]
    assert both.data.decoders["bicubic"].noise.drawn is False
    assert both.data.protocol.noise_seeds == 2


def test_extra_metrics_come_on_request(tmp_path: Path) -> None:
    config = RunConfig(
        decoders=("jpeg",), max_samples=2, resolution=64, extra_metrics=("dists",), output_dir=tmp_path / "run", cost=None
    )
    record = evaluate(config)
    assert 0.0 < record.results[0]["dists"] < 1.0
    assert "dists" in record.results[0]["intervals"]
    assert "dists" in record.data.metrics


def test_identity_is_exact(tmp_path: Path) -> None:
    record = run(tmp_path, "identity", max_samples=3)
    row = record.rows_for_people()[0]
    assert row["psnr"] == float("inf")
    assert record.results[0]["psnr"] is None
    assert row["lpips"] == 0
    assert row["ssim"] == pytest.approx(1)


def test_the_record_names_the_code_that_began_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit made while a run goes on is not the code that runs."""
    state = {"commit": "a" * 40, "dirty": False}
    monkeypatch.setattr("harness.environment.git_state", lambda root: dict(state))

    def commit(stage: str, done: int, total: int) -> None:
        state.update(commit="b" * 40, dirty=True)

    config = RunConfig(decoders=("identity",), output_dir=tmp_path / "run", max_samples=2, cost=None)
    assert evaluate(config, commit).data.environment["git"] == {"commit": "a" * 40, "dirty": False}
    assert state["dirty"]


def test_one_folder_in_two_places_is_one_protocol(tmp_path: Path) -> None:
    records = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 255, (70, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{index}.png")
        config = RunConfig(
            decoders=("bicubic",),
            dataset=f"folder:{tmp_path / place}",
            resolution=52,
            output_dir=tmp_path / f"run-{place}",
            cost=None,
        )
        records.append(evaluate(config))
    assert records[0].protocol_hash == records[1].protocol_hash
    first, second = (record.data.dataset for record in records)
    assert (first.source_sha256, first.reference_sha256) == (second.source_sha256, second.reference_sha256)


def test_rounding_is_half_to_even_once() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255]
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels.to(torch.uint8))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(decoders=("bicubik",)), "Did you mean 'bicubic'"),
        (RunConfig(decoders=()), "no decoder"),
        (RunConfig(decoders=("bicubic", "bicubic")), "twice"),
        (RunConfig(decoders=("bicubic",), dataset="fotos"), "photos"),
        (RunConfig(decoders=("bicubic",), device="gpu"), "--device gpu"),
        (RunConfig(decoders=("bicubic",), noise_seeds=0), "--noise-seeds 0"),
        (RunConfig(decoders=("bicubic",), margins="lpips"), "lpips"),
        (RunConfig(decoders=("bicubic",), extra_metrics=("lpips",)), "extra metric"),
        (RunConfig(decoders=("bicubic",), steps=4), "bicubic"),
        (RunConfig(decoders=("bicubic", "jpeg"), checkpoint=Path("x")), "--checkpoint"),
        (RunConfig(decoders=("vae",), checkpoint=Path("missing.safetensors")), "missing.safetensors"),
    ],
)
def test_bad_input_says_what_to_do_and_writes_nothing(
    config: RunConfig, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MsbenchError, match=words):
        evaluate(config)
    assert list(tmp_path.iterdir()) == []


def test_codes_of_different_lengths_are_timed_too(tmp_path: Path) -> None:
    """JPEG's codes are as long as the longest of their batch: joining them lost the whole quality pass."""
    cost = CostProtocol(batch_sizes=(4,), min_calls=1, max_calls=1, max_seconds=0.01)
    config = RunConfig(("jpeg",), resolution=32, max_samples=6, batch_size=2, cost=cost, output_dir=tmp_path / "run")
    assert evaluate(config).data.results[0].ms_per_image["4"] > 0
