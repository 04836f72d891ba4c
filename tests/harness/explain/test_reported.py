"""Matching of reported numbers: printed rounding, arithmetic error, other numbers of images, several at once."""

from __future__ import annotations

import pytest

from harness.errors import MsbenchError, UnknownNameError
from harness.explain.convention import Convention
from harness.explain.explanation import Explanation, Finding
from harness.explain.reported import PROTOCOL, joint, match, parse_reported


def found(*rows: tuple[str, str, float | None], n: int = 450, **protocol: float) -> Explanation:
    """`rows` are (metric, name, value); a name that begins with "all:" is a setting, one with digits has so many images."""
    findings = []
    for metric, name, value in rows:
        count = int(name.split()[-1]) if name.split()[-1].isdigit() else None
        scale = 1e3 if "×" in name else 1.0
        setting = name if name.startswith("all:") or count else ""
        one = Convention(metric, name, "", lambda sources: 0.0, (), setting, count, scale)
        findings.append(Finding(one, value, None, ""))
    return Explanation("vae", n, 0, protocol, tuple(findings))


@pytest.mark.parametrize(
    ("text", "value", "within"),
    [
        ("2.2", 2.2, 0.05),
        ("0.675", 0.675, 0.0005),
        ("1.50", 1.5, 0.005),
        ("25", 25.0, 0.5),
        ("1.25e1", 12.5, 0.05),
        (".8", 0.8, 0.05),
    ],
)
def test_printed_rounding(text: str, value: float, within: float) -> None:
    name, printed = parse_reported(f" rfid = {text} ")
    one = match(found(rfid=value), name, printed)
    assert (one.metric, one.printed, one.within) == ("rfid", text, pytest.approx(within))
    assert one.names == (PROTOCOL,)


@pytest.mark.parametrize("text", ["rfid", "rfid=", "rfid=nan", "rfid=inf", "rfid=2,2", "rfid=2.2 dB", "=2.2", "rfid=1e9999"])
def test_no_number(text: str) -> None:
    with pytest.raises(MsbenchError):
        parse_reported(text)


def test_an_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lpips'"):
        parse_reported("lpip=0.1")


def test_a_match_lies_within_rounding_and_arithmetic_error() -> None:
    rows = [
        ("psnr", name, value) for name, value in (("below", 24.994), ("low", 24.9951), ("high", 25.00504), ("above", 25.0062))
    ]
    assert match(found(*rows, psnr=20.0), "psnr", "25.00").names == ("low", "high")


def test_all_matches_are_listed_the_protocol_first() -> None:
    rows = [("ssim", "one", 0.8101), ("ssim", "other", 0.8099), ("psnr", "one", 0.81)]
    assert match(found(*rows, ssim=0.81), "ssim", "0.81").names == (PROTOCOL, "one", "other")


def test_where_nothing_matches_the_nearest_is_no_match() -> None:
    one = match(found(("ssim", "near", 0.80), ("ssim", "not computed", None), ssim=0.7), "ssim", "0.85")
    assert (one.names, one.settings, one.nearest) == ((), (), ("near", 0.80))
    assert str(one) == "ssim 0.85 (± 0.005) matches none; the nearest, not a match: near, 0.8"


def test_tolerance_of_a_scaled_metric_is_scaled() -> None:
    """KID's measured tolerance is 2e-4: 0.2 in thousandths."""
    rows = [("kid", "in thousandths ×", 1.62)]
    assert match(found(*rows, kid=0.5), "kid", "1.5").names == ("in thousandths ×",)
    assert match(found(*rows, kid=0.5), "kid", "1.3").names == ()


def test_another_number_of_images_refuses_rfid() -> None:
    rows = [("rfid", "first 5000", 3.1), ("rfid", "own way", 2.2), ("psnr", "own way", 25.0)]
    explanation = found(*rows, n=10_000, rfid=2.0, psnr=24.0)
    refused = match(explanation, "rfid", "2.2", images=50_000)
    assert not refused.names
    assert "it is of 50,000 images, the run of 10,000" in str(refused)
    assert match(explanation, "rfid", "3.1", images=5_000).names == ("first 5000",)
    assert match(explanation, "rfid", "2.2", images=5_000).nearest == ("first 5000", 3.1)
    assert match(explanation, "rfid", "2.2").names == ("own way",)
    assert match(explanation, "rfid", "3.1").names == ()
    assert match(explanation, "psnr", "25.0", images=50_000).names == ("own way",)


def test_nothing_computed_is_no_match() -> None:
    one = match(found(("ssim", "a", None)), "ssim", "0.8")
    assert (one.names, one.nearest) == ((), None)
    assert "not compared: nothing was computed" in str(one)


def test_several_numbers_match_jointly_in_one_way_of_making_the_images() -> None:
    rows = [
        *(("ssim", "window", 0.80), ("ssim", "all: truncated", 0.75), ("ssim", "all: squashed", 0.80)),
        *(("psnr", "Y", 26.0), ("psnr", "all: truncated", 26.0), ("psnr", "all: squashed", 22.0)),
    ]
    explanation = found(*rows, ssim=0.7, psnr=24.0)

    def both(ssim: str, psnr: str) -> tuple[str, ...]:
        return joint([match(explanation, "ssim", ssim), match(explanation, "psnr", psnr)])

    assert both("0.80", "26.0") == (PROTOCOL,)  # each metric by its own convention, on the run's images
    assert both("0.75", "26.0") == ("all: truncated",)
    assert both("0.80", "22.0") == ("all: squashed",)
    assert both("0.75", "22.0") == ()
    assert joint([match(explanation, "psnr", "26.0")]) == (PROTOCOL, "all: truncated")
    assert joint([]) == ()
