"""Every convention, and who uses it: code and issues that were read. To add one, add one entry."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.explain import kept, pairs, views
from harness.explain.convention import Convention
from harness.explain.pairs import Image
from harness.explain.sources import Sources, Stream, View, made, redone, rounded, saved, saved_reference
from harness.metrics.metric import Whole
from harness.stats.rfid import rfid_to_statistics, rfid_value

USERS: dict[str, str] = dict(csv.reader(Path(__file__).with_name("users.csv").read_text(encoding="utf-8").splitlines()))
"""who -> where it can be read"""
_IMAGES, _FILES = "saved images", "original files"
_squashed = made(views.squashed)
_antialiased, _aliased = (made(partial(views.short_side, on)) for on in (True, False))
_floats = redone()


def _kept(
    metric: str, name: str, of: Callable[[Whole], float], *users: str, rows: kept.Rows | None = None, scale: float = 1.0
) -> Convention:
    """Of what the run kept: features for a metric of sets, else samples."""
    features = metric in ("rfid", "kid")

    def value(sources: Sources) -> float:
        whole = sources.kept if features else sources.samples
        return of(whole.rows(rows(len(sources.run.keys))) if rows else whole)

    return Convention(metric, name, "features" if features else "samples", value, users, scale=scale)


def _rows(
    name: str, rows: kept.Rows, *users: str, metrics: str = "rfid psnr ssim lpips", images: int | None = None
) -> Iterator[Convention]:
    """Other images under every metric."""
    for metric in metrics.split():
        yield replace(_kept(metric, name, partial(kept.figure, metric), *users, rows=rows), setting=name, images=images)


def _each(name: str, rows: Callable[[int], kept.Rows], numbers: Sequence[int], *users: str) -> Iterator[Convention]:
    """The same for several numbers, each in the name's place."""
    for number in numbers:
        yield from _rows(name.format(number), rows(number), *users)


def _pair(metric: str, name: str, of: Callable[[Image, Image], float], *users: str) -> Convention:
    """The mean over pairs of saved images."""

    def value(sources: Sources) -> float:
        return pairs.mean(of(*pair) for pair in zip(saved_reference(sources), saved(sources), strict=True))

    return Convention(metric, name, _IMAGES, value, users)


def _distance(name: str, first: Stream | None, second: Stream | None, view: View, *users: str) -> Convention:
    """rFID of two streams; None = the features that the run kept."""

    def value(sources: Sources) -> float:
        # what can be missing beside the files comes first, before a network runs for nothing
        decoded = sources.features(second, view) if second else sources.kept.features
        return rfid_value(sources.features(first, view) if first else sources.kept.reference_features, decoded)

    return Convention("rfid", name, _IMAGES if first in (None, saved_reference) else _FILES, value, users)


def _given(name: str, view: View | None, *users: str) -> Convention:
    """rFID to somebody's statistics."""

    def value(sources: Sources) -> float:
        statistics = sources.statistics()
        return rfid_to_statistics(*statistics, sources.features(saved, view) if view else sources.kept.features)

    return Convention("rfid", name, f"statistics, {_IMAGES if view else 'features'}", value, users)


def _redone(name: str, reference: Stream, decoded: Stream, *users: str) -> Iterator[Convention]:
    """Images that the decoder made in another way, under the protocol's metrics."""
    for metric in ("psnr", "ssim", "lpips", "rfid"):

        def value(sources: Sources, metric: str = metric) -> float:
            return sources.judged(reference, decoded)[metric]

        yield Convention(metric, name, "decoder", value, users, name)


_FEWER = "rfid kid psnr ssim lpips"
_psnr = partial(kept.figure, "psnr")
_uniform = partial(pairs.ssim, window="uniform", sample=True)
_reflected = partial(pairs.ssim, reflected=True)
_unscaled = partial(pairs.lpips, span=(0.0, 1.0))
_thousand = kept.between(1_000, 10**9)

CONVENTIONS: tuple[Convention, ...] = (
    # from samples and features
    _kept("psnr", "dB of the mean error", kept.psnr_of_mean_error, "torch's super-resolution example"),
    _kept("psnr", "range 1 on [-1, 1]", lambda whole: _psnr(whole) - kept.SIX_DB),
    _kept("psnr", "range 2 on [0, 1]", lambda whole: _psnr(whole) + kept.SIX_DB),
    *_rows("first 5,000 images", kept.first(5_000), "Open-MAGVIT2 at 128 px", metrics=_FEWER, images=5_000),
    *_rows("5,000 images drawn", kept.drawn(5_000), metrics=_FEWER, images=5_000),
    *_rows("first 10,000 images", kept.first(10_000), metrics=_FEWER, images=10_000),
    *_rows("10,000 images drawn", kept.drawn(10_000), metrics=_FEWER, images=10_000),
    *_each("last batch of {} dropped", kept.whole_batches, (32, 50, 64, 128), "torch's ImageNet example"),
    *_each("padded for {} processes", kept.padded, (8, 64), "torch's DistributedSampler"),
    _kept("kid", "× 1,000", lambda whole: 1e3 * kept.figure("kid", whole), scale=1e3),
    _kept("kid", "100 subsets of 1,000", kept.kid_of_subsets, "torch-fidelity", "torchmetrics", "clean-fid", rows=_thousand),
    _kept("kid", "100 subsets of 1,000, × 1,000", lambda whole: 1e3 * kept.kid_of_subsets(whole), rows=_thousand, scale=1e3),
    _kept("kid", "all at once, own cross terms kept", kept.kid_of_all, "clean-fid", rows=kept.between(2, 10_000)),
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
    _pair("ssim", "data range 2 on [0, 1], uniform 7 × 7", partial(_uniform, data_range=510.0), "LlamaGen", "LlamaGen#72"),
    _pair("ssim", "data range 2 on [0, 1], Gaussian", partial(pairs.ssim, data_range=510.0)),
    _pair("ssim", "borders reflected", _reflected, "torchmetrics"),
    _pair("ssim", "borders reflected, data_range=None", partial(_reflected, data_range=None), "torchmetrics"),
    _pair("ssim", "borders reflected, on [-1, 1]", partial(_reflected, zero=127.5), "LightningDiT"),
    _pair("lpips", "VGG", partial(pairs.lpips, net="vgg"), "TokenBench", "SEED-Voken", "WF-VAE#21"),
    _pair("lpips", "[0, 1] fed unscaled", _unscaled, "nerfstudio#1424"),
    _pair("lpips", "VGG, [0, 1] fed unscaled", partial(_unscaled, net="vgg"), "RAE#25 (loss)"),
    _pair("lpips", "at 64 px", partial(pairs.lpips, side=64), "PerceptualSimilarity#64"),
    _pair("lpips", "at 224 px", partial(pairs.lpips, side=224)),
    _distance("pytorch-fid's resize", saved_reference, saved, views.pytorch_fid, "pytorch-fid", "SEED-Voken"),
    _distance("clean-fid's resize", saved_reference, saved, views.clean_fid, "clean-fid", "LlamaGen#34"),
    _distance("torchmetrics' resize since 1.8", saved_reference, saved, views.torchmetrics, "torchmetrics#3130"),
    _distance("reconstructions as JPEG 95", None, made(partial(views.jpeg, 95), saved), views.tensorflow, "DDPM-IP#31"),
    _distance("reconstructions as JPEG 75", None, made(partial(views.jpeg, 75), saved), views.tensorflow, "pytorch-fid#63"),
    # from the original files, and from statistics of others
    _distance("uncropped originals, clean-fid's resize", Sources.originals, saved, views.clean_fid, "D-AR#3"),
    _distance("uncropped originals", Sources.originals, None, views.tensorflow),
    _distance("squashed originals", _squashed, None, views.tensorflow),
    _distance("torchvision's resize and crop, antialiased", _antialiased, None, views.tensorflow, "LightningDiT"),
    _distance("torchvision's resize and crop, not antialiased", _aliased, None, views.tensorflow),
    _given("statistics of a file", None, "LlamaGen#34", "RAE#11", "guided-diffusion#161", "MAR#8"),
    _given("statistics of a file, pytorch-fid's resize", views.pytorch_fid, "pytorch-fid"),
    _given("statistics of a file, clean-fid's resize", views.clean_fid, "clean-fid"),
    # from the decoder
    *_redone("truncated instead of rounded", saved_reference, made(views.truncated, _floats), "1d-tokenizer", "SEED-Voken"),
    *_redone("floats, not rounded", saved_reference, _floats, "SEED-Voken", "pytorch-fid#63"),
    *_redone("posterior sample instead of mode", saved_reference, rounded(own={"posterior": "sample"}), "LightningDiT"),
    *_redone("decoder in bf16", saved_reference, rounded(dtype="bf16")),
    *_redone("decoder in fp32", saved_reference, rounded(dtype="fp32")),
    *_redone("input squashed", _squashed, rounded(_squashed)),
    *_redone("input by torchvision's resize and crop", _antialiased, rounded(_antialiased), "LightningDiT"),
)
"""What `msbench explain` computes, in the order of its tables."""
METRICS: tuple[str, ...] = tuple(dict.fromkeys(one.metric for one in CONVENTIONS))
"""metrics that have any"""
