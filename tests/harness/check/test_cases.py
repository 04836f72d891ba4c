"""Other people's mistakes: for each faulty plug-in of ../shared/cases the cause is named, the sound ones pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import msbench
from harness.registry import decoder_entries

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ROOT.parent / "shared" / "cases" / "plugin"
FAULTY = {
    "rp-nan-all": ("finite values", "4 of 4 images, that are NaN"),
    "rp-nan-some": ("finite values", "1 of 4 images, that are NaN"),
    "rp-nan-pixel": ("finite values", "that are NaN"),
    "rp-inf": ("finite values", "that are infinite"),
    "rp-range01": ("range", "look like [0, 1]"),
    "rp-range255": ("range", "look like [0, 255]"),
    "rp-uint8": ("dtype", "torch.uint8"),
    "rp-twice": ("shapes", "2 times the size"),
    "rp-padded": ("shapes", "32 rows and 32 columns too many"),
    "rp-smaller": ("shapes", "2 rows and 2 columns too few"),
    "rp-rgba": ("shapes", "RGBA"),
    "rp-hwc": ("shapes", "channels come last"),
    "rp-bgr": ("content", "in channels BGR, not RGB"),
    "rp-tuple": ("decode", "gave a tuple"),
    "rp-invert": ("content", "inverted"),
    "rp-inplace": ("inputs", "changed in place"),
    "rp-onebatch": ("shapes", "a batch of 4 came back as 1"),
    "rp-raises": ("decode", "cannot be multiplied"),
    "rp-enc-dist": ("encode", "gave a tuple"),
    "rp-globalnoise": ("random generators", "draws from a global random generator"),
    "rp-dropout": ("random generators", "dropout that is on"),
}
WARNED = ("rp-bgr", "rp-invert")
WEIGHTS = ROOT.parent / "shared" / "weights"
SOUND = ("rp-sdpa", "rp-mha", "rp-int8", "rp-script", "rp-compiled", "rp-linear", "rp-lstm")
SCRIPT = """
import json, sys
from dataclasses import asdict
from msbench import check
print(json.dumps({name: [asdict(one) for one in check(name, resolution=128)] for name in sys.argv[1:]}))
"""


@pytest.mark.slow
def test_every_shipped_decoder_passes() -> None:
    names = [name for name, entry in decoder_entries().items() if entry.origin == "msbench" and entry.ships_weights]
    names += [f"taef2@checkpoint={WEIGHTS}"] if WEIGHTS.is_dir() else []
    for name in names:
        assert [one for one in msbench.check(name, resolution=64) if not one.passed or one.detail] == [], name


@pytest.mark.slow
@pytest.mark.skipif(not PLUGIN.is_dir(), reason="../shared/cases is absent")
def test_every_faulty_plugin_is_named_and_every_sound_one_passes() -> None:
    paths = os.pathsep.join([str(PLUGIN), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *FAULTY, *SOUND],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (check, words) in FAULTY.items():
        failed = [one["name"] for one in found[name] if one["passed"] is False]
        assert failed == ([] if name in WARNED else [check]), (name, found[name])
        detail = next(one["detail"] for one in found[name] if one["name"] == check)
        assert words in detail, (name, detail)
        assert detail.startswith("warning: ") == (name in WARNED)
    for name in SOUND:
        assert [one for one in found[name] if not one["passed"] or one["detail"].startswith("warning: ")] == [], name
