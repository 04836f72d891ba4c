"""A run is read as a whole: what is missing or damaged in samples or features is one line, for everybody who reads runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from harness.compare.compare import compare
from harness.errors import MsbenchError
from harness.record.run import FEATURES, Features, open_run
from tests.harness.conftest import MakeRun

Samples = pd.DataFrame
Tensors = dict[str, Features]


def test_a_whole_run_opens(tmp_path: Path, make_run: MakeRun) -> None:
    run = open_run(make_run(tmp_path, {"vae": 0.0, "jpeg": 0.1}, n=6))
    assert run.keys == tuple(f"image-{index:03d}" for index in range(6))
    assert run.seeds("jpeg") == (0,)
    assert len(run.of("jpeg")) == 6
    kept = run.features("vae")
    assert kept is not None
    assert kept[0].shape == kept[1][0].shape == (6, 8)
    assert (tmp_path / FEATURES).stat().st_mode & 0o777 == 0o644
    bare = make_run(tmp_path / "bare", {"vae": 0.0}, features=False)
    assert open_run(bare).features("vae") is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.drop(columns=["lpips"]), "lacks the column lpips"),
        (lambda s: s.drop(columns=["key"]), "lacks the column key"),
        (lambda s: s.drop(columns=["noise_seed"]), "lacks the column noise_seed"),
        (lambda s: s.drop(columns=["decoder"]), "lacks the column decoder"),
        (lambda s: s[~((s.decoder == "vae") & (s.key == s.key.iloc[0]))], "each of 6 images once"),
        (lambda s: s[s.decoder != "vae"], "vae under noise seed 0"),
        (lambda s: s.assign(noise_seed=7), "noise seed"),
        (lambda s: s.assign(psnr=float("nan")), "psnr of vae has gaps"),
        (lambda s: s.assign(psnr=s.psnr.astype(str) + "x"), "psnr holds no numbers"),
        (lambda s: pd.concat([s, s.iloc[:2]]), "each of 6 images once"),
        (lambda s: s.iloc[:0], "only in it or only in the record"),
    ],
)
def test_damaged_samples_are_one_line(
    tmp_path: Path, make_run: MakeRun, damage: Callable[[Samples], Samples], words: str
) -> None:
    record = make_run(tmp_path, {"vae": 0.0, "jpeg": 0.1}, n=6)
    damage(record.samples()).to_parquet(tmp_path / "samples.parquet", index=False)
    _refused(tmp_path, words)


@pytest.mark.parametrize("content", [None, b"PAR1", b""])
def test_unreadable_samples_are_one_line(tmp_path: Path, make_run: MakeRun, content: bytes | None) -> None:
    make_run(tmp_path, {"vae": 0.0, "jpeg": 0.1}, n=6)
    path = tmp_path / "samples.parquet"
    path.unlink() if content is None else path.write_bytes(content)
    _refused(tmp_path, "samples.parquet cannot be read")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: {("vae/zero" if k == "vae/0" else k): v for k, v in t.items()}, "lacks vae/0"),
        (lambda t: {k: v[:5] if k == "vae/0" else v for k, v in t.items()}, r"vae/0 is F32 \[5, 8\]"),
        (lambda t: {k: v[:, :5] if k == "vae/0" else v for k, v in t.items()}, r"vae/0 is F32 \[6, 5\]"),
        (lambda t: {k: v.astype(np.float64) for k, v in t.items()}, "F64"),
        (lambda t: {k: v * np.nan if k == "vae/0" else v for k, v in t.items()}, "vae/0 holds a value that is not finite"),
        (lambda t: {k: v for k, v in t.items() if k != "reference"}, "lacks reference"),
        (lambda t: None, "not a readable safetensors file"),
    ],
)
def test_damaged_features_are_one_line(
    tmp_path: Path, make_run: MakeRun, damage: Callable[[Tensors], Tensors | None], words: str
) -> None:
    make_run(tmp_path, {"vae": 0.0, "jpeg": 0.1}, n=6)
    path = tmp_path / FEATURES
    tensors = damage(load_file(path))
    if tensors is None:
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    _refused(tmp_path, words)


def _refused(folder: Path, words: str) -> None:
    with pytest.raises(MsbenchError, match=words) as caught:
        compare([(open_run(folder).record, None)])
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
