"""Every convention, and who uses it: code and issues that were read. To add one, add one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from harness.explain import kept, pairs, views
from harness.explain.convention import Convention, Distance, Image, Kept, Pairs, Rows, Side, User, View

_ALL = "rfid psnr ssim lpips"
_GITHUB = "https://github.com/"
_USERS = {
    "LlamaGen": "FoundationVision/LlamaGen/blob/main/tokenizer/vqgan/reconstruction_vqgan_ddp.py",
    "LlamaGen#34": "FoundationVision/LlamaGen/issues/34",
    "LlamaGen#72": "FoundationVision/LlamaGen/issues/72",
    "SEED-Voken": "TencentARC/SEED-Voken/blob/main/evaluation_image.py",
    "Open-MAGVIT2 at 128 px": "TencentARC/SEED-Voken/issues/13",
    "TokenBench": "NVlabs/TokenBench/blob/main/token_bench/metrics_cli.py",
    "LightningDiT": "hustvl/LightningDiT/issues/26",
    "1d-tokenizer": "bytedance/1d-tokenizer/blob/main/evaluator/evaluator.py",
    "pytorch-fid": "mseitzer/pytorch-fid/blob/master/src/pytorch_fid/inception.py",
    "pytorch-fid#63": "mseitzer/pytorch-fid/issues/63",
    "clean-fid": "GaParmar/clean-fid/blob/main/cleanfid/resize.py",
    "torch-fidelity": "toshas/torch-fidelity/blob/master/torch_fidelity/metric_kid.py",
    "torchmetrics": "Lightning-AI/torchmetrics/blob/master/src/torchmetrics/functional/image/ssim.py",
    "torchmetrics#3130": "Lightning-AI/torchmetrics/issues/3130",
    "scikit-image": "scikit-image/scikit-image/blob/main/src/skimage/metrics/_structural_similarity.py",
    "BasicSR": "XPixelGroup/BasicSR/blob/master/basicsr/metrics/psnr_ssim.py",
    "D-AR#3": "showlab/D-AR/issues/3",
    "RAE#11": "bytetriper/RAE/issues/11",
    "RAE#25": "bytetriper/RAE/issues/25",
    "MAR#8": "LTH14/mar/issues/8",
    "guided-diffusion#161": "openai/guided-diffusion/issues/161",
    "nerfstudio#1424": "nerfstudio-project/nerfstudio/issues/1424",
    "WF-VAE#21": "PKU-YuanGroup/WF-VAE/issues/21",
    "DDPM-IP#31": "forever208/DDPM-IP/issues/31",
    "PerceptualSimilarity#64": "richzhang/PerceptualSimilarity/issues/64",
    "torch's DistributedSampler": "pytorch/pytorch/issues/25162",
    "torch's ImageNet example": "pytorch/examples/issues/1063",
    "torch's super-resolution example": "pytorch/examples/issues/522",
}


def _named(
    metric: str,
    name: str,
    measure: Kept | Pairs | Distance,
    *users: str,
    setting: str = "",
    images: int | None = None,
    scale: float = 1.0,
) -> Convention:
    who = tuple(User(user, _GITHUB + _USERS[user]) for user in users)
    return Convention(metric, name, measure, who, setting, images, scale)


def _pair(metric: str, name: str, of: Callable[[Image, Image], float], *users: str) -> Convention:
    return _named(metric, name, Pairs(of), *users)


def _rows(name: str, rows: Rows, *users: str, metrics: str = _ALL, images: int | None = None) -> Iterator[Convention]:
    """Other images under every metric."""
    for metric in metrics.split():
        measure = Kept(partial(kept.figure, metric), metric in ("rfid", "kid"), rows)
        yield _named(metric, name, measure, *users, setting=name, images=images)


def _resized(name: str, view: View, *users: str) -> Convention:
    return _named("rfid", name, Distance(Side("reference", view), Side("decoded", view)), *users)


def _reference(name: str, stream: str, view: View, *users: str) -> Convention:
    """Another reference; of the reconstructions the features that the run kept, where the resize is the protocol's."""
    decoded = None if view is views.tensorflow else Side("decoded", view)
    return _named("rfid", name, Distance(Side(stream, view), decoded), *users)


def _redone(name: str, decoded: str, *users: str, reference: str = "reference") -> Iterator[Convention]:
    """Images that the decoder made in another way, under the protocol's metrics."""
    for metric, of in (("psnr", pairs.psnr), ("ssim", pairs.ssim), ("lpips", pairs.lpips)):
        yield _named(metric, name, Pairs(of, reference, decoded), *users, setting=name)
    first = None if reference == "reference" else Side(reference, views.tensorflow)
    yield _named("rfid", name, Distance(first, Side(decoded, views.tensorflow)), *users, setting=name)


_FEWER = f"{_ALL} kid"
_uniform = partial(pairs.ssim, window="uniform", sample=True)
_ranged = partial(pairs.ssim, span=(0.0, 1.0), data_range=2.0)
_reflected = partial(pairs.ssim, reflected=True)
_unscaled = partial(pairs.lpips, span=(0.0, 1.0))

CONVENTIONS: tuple[Convention, ...] = (
    # from samples and features
    _named("psnr", "dB of the mean error", Kept(kept.psnr_of_mean_error, False), "torch's super-resolution example"),
    _named("psnr", "range 1 on [-1, 1]", Kept(lambda whole: kept.figure("psnr", whole) - kept.SIX_DB, False)),
    _named("psnr", "range 2 on [0, 1]", Kept(lambda whole: kept.figure("psnr", whole) + kept.SIX_DB, False)),
    *_rows("first 5,000 images", kept.first(5_000), "Open-MAGVIT2 at 128 px", metrics=_FEWER, images=5_000),
    *_rows("5,000 images drawn", kept.drawn(5_000), metrics=_FEWER, images=5_000),
    *_rows("first 10,000 images", kept.first(10_000), metrics=_FEWER, images=10_000),
    *_rows("10,000 images drawn", kept.drawn(10_000), metrics=_FEWER, images=10_000),
    *_rows("last batch of 32 dropped", kept.whole_batches(32), "torch's ImageNet example"),
    *_rows("last batch of 50 dropped", kept.whole_batches(50), "torch's ImageNet example"),
    *_rows("last batch of 64 dropped", kept.whole_batches(64), "torch's ImageNet example"),
    *_rows("last batch of 128 dropped", kept.whole_batches(128), "torch's ImageNet example"),
    *_rows("padded for 8 processes", kept.padded(8), "torch's DistributedSampler"),
    *_rows("padded for 64 processes", kept.padded(64), "torch's DistributedSampler"),
    _named("kid", "× 1,000", Kept(lambda whole: 1_000 * kept.figure("kid", whole), True), scale=1e3),
    _named(
        "kid",
        "100 subsets of 1,000",
        Kept(kept.kid_of_subsets, True, kept.at_least(1_000)),
        "torch-fidelity",
        "torchmetrics",
        "clean-fid",
    ),
    _named(
        "kid",
        "100 subsets of 1,000, × 1,000",
        Kept(partial(kept.kid_of_subsets, scale=1e3), True, kept.at_least(1_000)),
        scale=1e3,
    ),
    _named("kid", "all at once, own cross terms kept", Kept(kept.kid_of_all, True, kept.at_most(10_000)), "clean-fid"),
    # from pictures
    _pair("psnr", "Y, studio range", partial(pairs.psnr, luma=pairs.studio), "BasicSR"),
    _pair("psnr", "Y, full range", partial(pairs.psnr, luma=pairs.full)),
    _pair("ssim", "Gaussian, sample covariance", partial(pairs.ssim, sample=True), "scikit-image"),
    _pair("ssim", "uniform 7 × 7, sample covariance", _uniform, "SEED-Voken", "TokenBench"),
    _pair("ssim", "uniform 7 × 7, population covariance", partial(pairs.ssim, window="uniform"), "scikit-image"),
    _pair("ssim", "grey", partial(pairs.ssim, luma=pairs.grey), "scikit-image"),
    _pair("ssim", "grey, uniform 7 × 7", partial(_uniform, luma=pairs.grey), "scikit-image"),
    _pair("ssim", "Y, studio range", partial(pairs.ssim, luma=pairs.studio), "BasicSR"),
    _pair("ssim", "Y, full range", partial(pairs.ssim, luma=pairs.full)),
    _pair(
        "ssim",
        "data range 2 on [0, 1], uniform 7 × 7",
        partial(_uniform, span=(0.0, 1.0), data_range=2.0),
        "LlamaGen",
        "LlamaGen#72",
    ),
    _pair("ssim", "data range 2 on [0, 1], Gaussian", _ranged),
    _pair("ssim", "borders reflected", _reflected, "torchmetrics"),
    _pair("ssim", "borders reflected, data_range=None", partial(_reflected, data_range=None), "torchmetrics"),
    _pair("ssim", "borders reflected, on [-1, 1]", partial(_reflected, span=(-1.0, 1.0), data_range=2.0), "LightningDiT"),
    _pair("lpips", "VGG", partial(pairs.lpips, net="vgg"), "TokenBench", "SEED-Voken", "WF-VAE#21"),
    _pair("lpips", "[0, 1] fed unscaled", _unscaled, "RAE#25", "nerfstudio#1424"),
    _pair("lpips", "VGG, [0, 1] fed unscaled", partial(_unscaled, net="vgg"), "RAE#25"),
    _pair("lpips", "at 64 px", partial(pairs.lpips, side=64), "PerceptualSimilarity#64"),
    _pair("lpips", "at 224 px", partial(pairs.lpips, side=224)),
    _resized("pytorch-fid's resize", views.pytorch_fid, "pytorch-fid", "SEED-Voken"),
    _resized("clean-fid's resize", views.clean_fid, "clean-fid", "LlamaGen#34"),
    _resized("torchmetrics' resize since 1.8", views.torchmetrics, "torchmetrics#3130"),
    _named("rfid", "reconstructions as JPEG 95", Distance(None, Side("jpeg 95", views.tensorflow)), "DDPM-IP#31"),
    _named("rfid", "reconstructions as JPEG 75", Distance(None, Side("jpeg 75", views.tensorflow)), "pytorch-fid#63"),
    # from the original files, and from statistics of others
    _reference("uncropped originals, clean-fid's resize", "original", views.clean_fid, "D-AR#3"),
    _reference("uncropped originals", "original", views.tensorflow),
    _reference("squashed originals", "squashed", views.tensorflow),
    _reference("torchvision's resize and crop, antialiased", "antialiased", views.tensorflow, "LightningDiT"),
    _reference("torchvision's resize and crop, not antialiased", "aliased", views.tensorflow),
    _named(
        "rfid", "statistics of a file", Distance(None, None, True), "LlamaGen#34", "RAE#11", "guided-diffusion#161", "MAR#8"
    ),
    _named(
        "rfid",
        "statistics of a file, pytorch-fid's resize",
        Distance(None, Side("decoded", views.pytorch_fid), True),
        "pytorch-fid",
    ),
    _named(
        "rfid", "statistics of a file, clean-fid's resize", Distance(None, Side("decoded", views.clean_fid), True), "clean-fid"
    ),
    # from the decoder
    *_redone("truncated instead of rounded", "truncated", "1d-tokenizer", "SEED-Voken"),
    *_redone("floats, not rounded", "unrounded", "SEED-Voken", "pytorch-fid#63"),
    *_redone("posterior sample instead of mode", "sampled", "LightningDiT"),
    *_redone("decoder in bf16", "bf16"),
    *_redone("decoder in fp32", "fp32"),
    *_redone("input squashed", "squashed decoded", reference="squashed"),
    *_redone("input by torchvision's resize and crop", "antialiased decoded", "LightningDiT", reference="antialiased"),
)
"""What `msbench explain` computes, in the order of its tables."""
METRICS: tuple[str, ...] = tuple(dict.fromkeys(one.metric for one in CONVENTIONS))
"""metrics that have any"""
