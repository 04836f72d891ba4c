"""`.npz` files of samples: read as they are, refused where they are something else, and never unpickled."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data.images import decode
from harness.data.npz import open_npz
from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.errors import MsbenchError

SAMPLES = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("samples", [SAMPLES, np.asfortranarray(SAMPLES)])
def test_samples_come_back_in_their_order(tmp_path: Path, write: Callable[..., None], samples: np.ndarray) -> None:
    write(tmp_path / "s.npz", samples)
    source = open_npz(tmp_path / "s.npz")
    assert source.names == ["000000.ppm", "000001.ppm", "000002.ppm"]
    for name, image in zip(source.names, samples, strict=True):
        assert np.array_equal(np.asarray(decode(source.read(name))), image)
    assert isinstance(source.pixels, np.memmap) == (write is np.savez and samples is SAMPLES)


def test_other_arrays_beside_the_samples_do_no_harm(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", SAMPLES, np.arange(3))
    assert np.array_equal(open_npz(tmp_path / "s.npz").pixels, SAMPLES)


def test_a_set_of_samples_is_a_dataset(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", SAMPLES)
    dataset = open_dataset(Request(f"folder:{tmp_path / 's.npz'}", as_given=True))
    assert [example.key for example in dataset] == ["000000", "000001", "000002"]
    assert all(np.array_equal(example.image, image) for example, image in zip(dataset, SAMPLES, strict=True))
    assert (dataset.info.resolution, dataset.info.preprocessing) == (0, "as-given-v1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"arr_0": SAMPLES.astype(np.float32)}, "arr_0 is float32 [3, 32, 40, 3], wanted uint8"),
        ({"arr_0": SAMPLES[..., 0]}, "arr_0 is uint8 [3, 32, 40], wanted"),
        ({"arr_0": SAMPLES[:0]}, "arr_0 is uint8 [0, 32, 40, 3], wanted"),
        ({"arr_0": np.array([{}], dtype=object)}, "arr_0 is object [1], wanted"),
        ({"samples": SAMPLES}, "holds no array arr_0"),
    ],
)
def test_another_content_is_one_line(tmp_path: Path, content: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "s.npz", **content)
    with pytest.raises(MsbenchError) as caught:
        open_npz(tmp_path / "s.npz")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)

    def __init__(self, path: Path) -> None:
        self.path = path


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    (tmp_path / "plain.npz").write_bytes(trap)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1, 1, 1, 3)})
    with zipfile.ZipFile(tmp_path / "inside.npz", "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue() + trap)
    for name in ("plain", "inside"):
        with pytest.raises(MsbenchError):
            open_npz(tmp_path / f"{name}.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_one_line(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "s.npz", SAMPLES)
    whole = (tmp_path / "s.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for cut in (whole[:100], whole[:-100], b"", whole[200:], b"PK" + whole[2:40] + b"\xff" * 400 + whole[440:]):
        path.write_bytes(cut)
        try:
            source = open_npz(path)
        except MsbenchError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert source.pixels.shape == SAMPLES.shape
