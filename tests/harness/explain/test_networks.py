"""Conventions that need the networks, against other people's code; and numbers that outside packages made.

On 16 pictures, or as many as MSBENCH_TEST_PICTURES says: 64 take about a quarter of an hour on one core.
"""

from __future__ import annotations

import os
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchvision import transforms

from harness.explain.explanation import Explanation, explain
from harness.explain.reported import PROTOCOL, joint, match
from harness.metrics.inception import torch_fidelity_state_dict
from harness.metrics.lpips import Lpips
from tests.harness.explain.conftest import RESOLUTION, Pictures, Saved, make_run, needs, read, value

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("metric_weights")]
DECODER = "vae"
PICTURES = int(os.environ.get("MSBENCH_TEST_PICTURES", "16"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return make_run(tmp_path_factory.mktemp("explain"), DECODER, None, PICTURES)


@pytest.fixture(scope="module")
def statistics(saved: Saved, network: Outside, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean and covariance of other pictures, the originals mirrored, as pytorch-fid keeps them."""
    features = network.features([network.pytorch_fid(image[:, ::-1]) for image in read(saved.originals)])
    path = tmp_path_factory.mktemp("statistics") / "reference.npz"
    np.savez(path, mu=features.mean(axis=0), sigma=np.cov(features, rowvar=False))
    return path


@pytest.fixture(scope="module")
def found(saved: Saved, statistics: Path) -> Explanation:
    return explain(saved.run, redo=True, statistics=statistics)


class Outside:
    """torch-fidelity's network as it is, behind pytorch-fid's, clean-fid's and torchmetrics' rules."""

    def __init__(self, weights: Path) -> None:
        torch.save(torch_fidelity_state_dict(), weights)
        self.weights = weights
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
        self.seen: list[Tensor] = []

    def features(self, inputs: list[Tensor]) -> np.ndarray:
        """Of inputs [3, 299, 299] in [-1, 1]: its own forward, with its resize and scaling passed by."""
        found = []
        for one in inputs:
            hook = self.network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, __, one=one: (one[None],))
            with torch.no_grad():
                found.append(self.network(torch.zeros(1, 3, 299, 299, dtype=torch.uint8))[0].numpy())
            hook.remove()
        return np.concatenate(found).astype(np.float64)

    def distance(self, first: np.ndarray, second: np.ndarray) -> float:
        sides = [fid_features_to_statistics(torch.from_numpy(side)) for side in (first, second)]
        return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])

    def of(self, rule: str, reference: Pictures, decoded: Pictures) -> float:
        view = getattr(self, rule)
        return self.distance(self.features([*map(view, reference)]), self.features([*map(view, decoded)]))

    @staticmethod
    def pytorch_fid(image: np.ndarray) -> Tensor:
        x = transforms.ToTensor()(np.ascontiguousarray(image))[None]
        return 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)[0] - 1

    @staticmethod
    def clean_fid(image: np.ndarray) -> Tensor:
        planes = [Image.fromarray(image[:, :, c].astype(np.float32), mode="F") for c in range(3)]
        sized = [np.asarray(plane.resize((299, 299), resample=Image.BICUBIC)) for plane in planes]
        return (torch.from_numpy(np.stack(sized)) - 128) / 128

    @staticmethod
    def torchmetrics(image: np.ndarray) -> Tensor:
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        return (F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False, antialias=True)[0] - 128) / 128

    @staticmethod
    def tensorflow(image: np.ndarray) -> Tensor:
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        return (interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)[0] - 128) / 128


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(tmp_path_factory.mktemp("weights") / "inception.pth")


def torchvision(saved: Saved, *steps: object) -> Pictures:
    """The originals through torchvision's transforms; tensors are rounded, not cut off."""
    found, chain = [], transforms.Compose(list(steps))
    for image in read(saved.originals):
        done = chain(Image.fromarray(image))
        found.append(
            (done * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() if isinstance(done, Tensor) else np.asarray(done)
        )
    return found


RESIZES = {
    "pytorch-fid's resize": "pytorch_fid",
    "clean-fid's resize": "clean_fid",
    "torchmetrics' resize since 1.8": "torchmetrics",
}


@pytest.mark.parametrize("name", RESIZES)
def test_rfid_after_other_resizes(name: str, saved: Saved, found: Explanation, network: Outside) -> None:
    theirs = network.of(RESIZES[name], saved.pictures("reference"), saved.pictures(DECODER))
    assert value(found, "rfid", name) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("quality", [75, 95])
def test_rfid_of_jpeg_files_by_torch_fidelity(
    quality: int, saved: Saved, found: Explanation, network: Outside, tmp_path: Path
) -> None:
    folder = saved.copied(DECODER, tmp_path / "jpeg", quality=quality)
    assert value(found, "rfid", f"reconstructions as JPEG {quality}") == pytest.approx(
        files_rfid(saved.images / "reference", folder, network), rel=1e-3
    )


def files_rfid(first: Path, second: Path, network: Outside) -> float:
    """torch-fidelity's own reading, network and statistics."""
    options = {"cuda": False, "fid": True, "verbose": False, "cache": False, "batch_size": 16, "save_cpu_ram": True}
    weights = {"feature_extractor_weights_path": str(network.weights)}
    found = calculate_metrics(input1=str(first), input2=str(second), **options, **weights)
    return float(found["frechet_inception_distance"])


def test_rfid_to_other_references(saved: Saved, found: Explanation, network: Outside) -> None:
    decoded, originals = saved.pictures(DECODER), read(saved.originals)
    clean = network.of("clean_fid", originals, decoded)
    assert value(found, "rfid", "uncropped originals, clean-fid's resize") == pytest.approx(clean, rel=1e-3)
    kept = network.features([*map(network.tensorflow, decoded)])
    chain = [transforms.ToTensor(), transforms.Resize(RESOLUTION), transforms.CenterCrop(RESOLUTION)]
    raw = [transforms.ToTensor(), transforms.Resize(RESOLUTION, antialias=False), transforms.CenterCrop(RESOLUTION)]
    references = {
        "uncropped originals": originals,
        "squashed originals": torchvision(saved, transforms.Resize((RESOLUTION, RESOLUTION))),
        "torchvision's resize and crop, antialiased": torchvision(saved, *chain),
        "torchvision's resize and crop, not antialiased": torchvision(saved, *raw),
    }
    for name, pictures in references.items():
        theirs = network.distance(network.features([*map(network.tensorflow, pictures)]), kept)
        assert value(found, "rfid", name) == pytest.approx(theirs, rel=1e-3), name


def test_rfid_to_statistics_of_a_file(saved: Saved, found: Explanation, network: Outside, statistics: Path) -> None:
    with np.load(statistics) as file:
        given = {"mu": file["mu"], "sigma": file["sigma"]}
    for name, rule in (("", "tensorflow"), (", pytorch-fid's resize", "pytorch_fid"), (", clean-fid's resize", "clean_fid")):
        features = network.features([getattr(network, rule)(image) for image in saved.pictures(DECODER)])
        own = fid_features_to_statistics(torch.from_numpy(features))
        theirs = fid_statistics_to_metric(given, own, verbose=False)["frechet_inception_distance"]
        assert value(found, "rfid", f"statistics of a file{name}") == pytest.approx(theirs, rel=1e-3)


def package_lpips(net: str, saved: Saved, scale: float = 127.5, shift: float = 1.0, side: int | None = None) -> float:
    """The lpips package's network over `im2tensor`-like inputs x / scale - shift."""
    network, values = Lpips.load(net).network, []  # type: ignore[arg-type]
    with torch.no_grad():
        for pair in zip(saved.pictures(DECODER), saved.pictures("reference"), strict=True):
            sides = [lpips.im2tensor(image, cent=shift, factor=scale) for image in pair]
            sides = [
                F.interpolate(one, size=(side, side), mode="bilinear", align_corners=False) if side else one for one in sides
            ]
            values.append(float(network(*sides)))
    return float(np.mean(values))


def test_lpips_with_other_networks_ranges_and_sizes(saved: Saved, found: Explanation) -> None:
    cases = {
        "VGG": package_lpips("vgg", saved),
        "[0, 1] fed unscaled": package_lpips("alex", saved, 255.0, 0.0),
        "VGG, [0, 1] fed unscaled": package_lpips("vgg", saved, 255.0, 0.0),
        "at 64 px": package_lpips("alex", saved, side=64),
        "at 224 px": package_lpips("alex", saved, side=224),
    }
    for name, theirs in cases.items():
        assert value(found, "lpips", name) == pytest.approx(theirs, abs=1e-3, rel=1e-3), name
    assert len({round(theirs, 4) for theirs in cases.values()}) >= len(cases) - 1  # 64 px are the run's own here


def outputs(saved: Saved, dtype: torch.dtype = torch.float32, inputs: Pictures | None = None) -> Tensor:
    """The decoder called by hand: [n, 3, R, R] in [-1, 1], clamped."""
    from harness.decoder import DecoderOptions
    from harness.noise import SampleNoise
    from harness.registry import build_decoder

    decoder = build_decoder(DECODER, DecoderOptions(dtype=dtype))
    x = torch.from_numpy(np.stack(inputs or saved.pictures("reference"))).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return (
            decoder.decode(decoder.encode(x), SampleNoise.for_samples(0, [str(i) for i in range(len(x))])).float().clamp(-1, 1)
        )


def test_the_decoder_again(saved: Saved, found: Explanation, network: Outside) -> None:
    reference = torch.from_numpy(np.stack(saved.pictures("reference"))).permute(0, 3, 1, 2)
    floats = (outputs(saved) + 1) / 2

    def psnr(levels: Tensor, truth: Tensor = reference) -> float:
        pairs = zip(levels.double(), truth.double(), strict=True)
        return float(np.mean([float(peak_signal_noise_ratio(y, x, data_range=255.0)) for y, x in pairs]))

    cut = (floats * 255).to(torch.uint8)
    assert value(found, "psnr", "truncated instead of rounded") == pytest.approx(psnr(cut), abs=1e-3)
    assert value(found, "psnr", "floats, not rounded") == pytest.approx(psnr(floats * 255), abs=1e-3)
    half = ((outputs(saved, torch.bfloat16) + 1) * 127.5).round()
    assert value(found, "psnr", "decoder in bf16") == pytest.approx(psnr(half), abs=2e-2)  # bf16 depends on the batch
    squashed = torchvision(saved, transforms.Resize((RESOLUTION, RESOLUTION)))
    truth = torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2)
    again = ((outputs(saved, inputs=squashed) + 1) * 127.5).round()
    assert value(found, "psnr", "input squashed") == pytest.approx(psnr(again, truth), abs=1e-3)
    pictures = [np.ascontiguousarray(image) for image in cut.permute(0, 2, 3, 1).numpy()]
    theirs = network.of("tensorflow", saved.pictures("reference"), pictures)
    assert value(found, "rfid", "truncated instead of rounded") == pytest.approx(theirs, rel=1e-3)
    assert "option of decoder" in needs(found, "rfid", "posterior sample instead of mode")
    assert "the run's own fp32" in needs(found, "rfid", "decoder in fp32")


def test_planted_numbers_are_named_and_unplanted_ones_are_not(
    saved: Saved, found: Explanation, network: Outside, tmp_path: Path
) -> None:
    """Six numbers by outside packages, rounded as papers do; three that nothing made."""
    from skimage.metrics import structural_similarity

    x, y = saved.pictures("reference"), saved.pictures(DECODER)
    unit = [[image.astype(np.float32) / 255.0 for image in side] for side in (x, y)]
    stacks = [torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).double() / 127.5 - 1 for side in (x, y)]
    ranges = [structural_similarity(b, a, data_range=2.0, channel_axis=-1) for a, b in zip(*unit, strict=True)]
    jpeg = files_rfid(saved.images / "reference", saved.copied(DECODER, tmp_path / "jpeg", quality=75), network)
    made = {
        ("ssim", "data range 2 on [0, 1], uniform 7 × 7", 3): np.mean(ranges),
        ("ssim", "borders reflected, on [-1, 1]", 4): structural_similarity_index_measure(*stacks, data_range=(-1.0, 1.0)),
        ("psnr", "dB of the mean error", 2): peak_signal_noise_ratio(*stacks, data_range=2.0),
        ("lpips", "VGG", 3): package_lpips("vgg", saved),
        ("rfid", "uncropped originals, clean-fid's resize", 1): network.of("clean_fid", read(saved.originals), y),
        ("rfid", "reconstructions as JPEG 75", 2): jpeg,
    }
    planted = {(metric, name): f"{float(number):.{digits}f}" for (metric, name, digits), number in made.items()}
    for (metric, name), printed in planted.items():
        one = match(found, metric, printed)
        assert name in one.names, (printed, str(one))
        assert PROTOCOL not in one.names
    for metric, printed in (("rfid", "0.74"), ("ssim", "0.123"), ("psnr", "45.68")):
        one = match(found, metric, printed)
        assert one.names == ()
        assert "matches none" in str(one)
    together = [
        match(found, "ssim", planted["ssim", "borders reflected, on [-1, 1]"]),
        match(found, "lpips", planted["lpips", "VGG"]),
    ]
    assert PROTOCOL in joint(together)
    assert found.n == PICTURES
