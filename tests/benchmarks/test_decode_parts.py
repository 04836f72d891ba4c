"""The profile of a decode: its parts add up to the whole, and each is what a decode does."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import decode_parts
from benchmarks.decode_parts import calls_of, measure, parts_of
from decoders.models import DiffusionDecoder
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.request.requests import parse_request
from harness.speed.bench import photo_pixels


def test_parts_add_up_to_the_whole() -> None:
    ms = {"projection": 1.0, "whole": 20.0}
    ms |= {"noise 0": 0.5, "begin 0": 0.75, "network 0": 2.0, "integrate 0": 2.5}
    ms |= {"noise 1": 1.5, "begin 1": 2.0, "network 1": 3.0, "integrate 1": 3.25}
    found = dict(parts_of(ms, (1, 2)))
    assert found["noise"] == 2.0
    assert (found["scale 1 start"], found["scale 1 network"], found["scale 1 path"]) == (0.5, 6.0, 0.5)
    assert sum(value for name, value in found.items() if name != "whole") == pytest.approx(found["whole"])


def test_a_network_is_called_with_what_a_decode_hands_it() -> None:
    """The last call of the finest scale's step gives the image itself."""
    decoder = parse_request("ms-onestep@weights=random").build(torch.device("cpu"), torch.float32)
    assert isinstance(decoder, DiffusionDecoder)
    latents, noise = torch.zeros(2, 16, 8, 8), SampleNoise.for_samples(0, ["a", "b"])
    with torch.inference_mode():
        calls = calls_of(decoder, latents, noise, lambda function: function)
        assert torch.equal(calls["integrate 2"](), decoder.decode(latents, noise))  # type: ignore[arg-type]
    assert Counter(name.split()[0] for name in calls) == dict.fromkeys(("noise", "begin", "network", "integrate"), 3) | {
        "projection": 1
    }
    assert decoder.parts is None


def test_a_decoder_without_parts_is_named() -> None:
    with pytest.raises(MsbenchError, match="vae@weights=random has no parts"):
        measure(parse_request("vae@weights=random"), "eager", "fp32", 1, 1, photo_pixels(64))


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = tmp_path / "parts.csv"
    quick = ["--mode", "eager", "--dtype", "fp32", "--batch", "1", "--rounds", "1", "--resolution", "64"]
    monkeypatch.setattr("sys.argv", ["decode_parts.py", *quick, "--decoder", "ms-onestep@weights=random", "--output", str(to)])
    decode_parts.main()
    with to.open() as stream:
        rows = {row["part"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 2 + 3 * 3 + 2
    work = sum(float(row["gflops"]) for name, row in rows.items() if name != "whole")
    assert float(rows["whole"]["gflops"]) == pytest.approx(work, rel=1e-4)
    assert float(rows["whole"]["share"]) == 1
