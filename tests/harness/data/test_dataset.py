from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from harness.data.registry import dataset_names, open_dataset
from harness.errors import MsbenchError, UnknownNameError


def open_folder(path, **changes):
    options = {"data_dir": None, "resolution": 16, "max_samples": None, "seed": 0} | changes
    return open_dataset(f"folder:{path}", **options)


@pytest.fixture
def mixed(tmp_path, tree):
    root = tree(tmp_path / "mixed", [f"{label}/{i}.png" for label in "ab" for i in range(8)])
    Image.new("RGB", (15, 40)).save(root / "a" / "tiny.png")
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff junk")
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "readme.md").write_text("not an image")
    return root


def test_labels_order_hashes_and_skips(mixed):
    dataset = open_folder(mixed)
    examples = list(dataset)
    assert len(dataset) == dataset.info.n_available == dataset.info.n_selected == 19
    assert [example.key for example in examples] == sorted(f"{label}__{i}" for label in "ab" for i in range(8))
    assert {example.label for example in examples} == {"a", "b"}
    assert dataset.info.classes == 2
    assert "1 files ignored" in dataset.info.note
    for example in examples:
        data = (mixed / f"{example.key.replace('__', '/')}.png").read_bytes()
        assert example.source_sha256 == hashlib.sha256(data).hexdigest()
        assert example.source_photo == example.key
        assert example.image.shape == (16, 16, 3)
        assert example.image.dtype == np.uint8
    reasons = {skip.name: skip.reason for skip in dataset.skipped}
    assert set(reasons) == {"a/tiny.png", "a/broken.jpg", "b/empty.png"}
    assert "too small: 15x40" in reasons["a/tiny.png"]
    assert reasons["b/empty.png"] == "empty file"
    list(dataset)
    assert len(dataset.skipped) == 3  # a second pass names nothing twice


def test_upsampling_on_request_is_named(mixed):
    dataset = open_folder(mixed, allow_upsampling=True)
    assert "a__tiny" in {example.key for example in dataset}
    assert dataset.info.preprocessing != open_folder(mixed).info.preprocessing


def test_load_and_stream_agree(mixed):
    dataset = open_folder(mixed)
    loaded = [dataset.load(index) for index in range(len(dataset))]
    assert sum(example is None for example in loaded) == 3
    wanted = [15, 2, 12]
    skipped = next(index for index, example in enumerate(loaded) if example is None)
    streamed = list(dataset.stream([wanted[0], skipped, *wanted[1:]]))
    assert [example.key for example in streamed] == [loaded[index].key for index in wanted]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(dataset.load, range(len(dataset))))
    for one, other in zip(loaded, again, strict=True):
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one.image, other.image)


def test_a_reader_that_stops_early_leaves_no_thread(mixed):
    stream = iter(open_folder(mixed))
    next(stream)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_a_file_that_vanishes_is_named(mixed):
    dataset = open_folder(mixed)
    (mixed / "a" / "0.png").unlink()
    assert len(list(dataset)) == 15
    assert "cannot be read" in {skip.name: skip.reason for skip in dataset.skipped}["a/0.png"]


def test_folder_and_its_tar_are_the_same_dataset(mixed, tmp_path, pack):
    for tar in (pack(mixed, tmp_path / "other.tar"), pack(mixed.parent / "mixed", tmp_path / "mixed.tar")):
        left, right = list(open_folder(mixed)), list(open_folder(tar))
        assert [(e.key, e.label, e.source_sha256) for e in left] == [(e.key, e.label, e.source_sha256) for e in right]
        assert all(np.array_equal(one.image, other.image) for one, other in zip(left, right, strict=True))


def test_max_samples_is_stratified_and_seeded(mixed):
    keys = [entry.key for entry in open_folder(mixed, max_samples=6, seed=1).entries]
    info = open_folder(mixed, max_samples=6, seed=1).info
    assert (info.n_available, info.n_selected) == (19, 6)
    assert sum(key.startswith("a") for key in keys) in (3, 4)  # 10 of the 19 are a
    assert keys == [entry.key for entry in open_folder(mixed, max_samples=6, seed=1).entries]
    assert keys != [entry.key for entry in open_folder(mixed, max_samples=6, seed=2).entries]
    assert len(open_folder(mixed, max_samples=500)) == 19


def test_bad_input_is_named(tmp_path):
    common = {"data_dir": None, "resolution": None, "max_samples": None, "seed": 0}
    assert set(dataset_names()) == {"photos", "imagenette", "imagenet-val", "folder:PATH"}
    with pytest.raises(UnknownNameError, match="Did you mean 'imagenette'"):
        open_dataset("imagenete", **common)
    with pytest.raises(UnknownNameError, match="split"):
        open_dataset("photos", **common, split="test")
    with pytest.raises(MsbenchError, match=f"folder:{tmp_path}"):
        open_dataset(str(tmp_path), **common)
    with pytest.raises(MsbenchError, match="max-samples"):
        open_dataset("photos", **(common | {"max_samples": 0}))
    with pytest.raises(MsbenchError, match="resolution"):
        open_dataset("photos", **(common | {"resolution": 0}))
    with pytest.raises(MsbenchError, match="holds no image files"):
        open_folder(tmp_path)
    with pytest.raises(MsbenchError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(MsbenchError, match="once"):
        open_folder("")
    with pytest.raises(MsbenchError, match="once"):
        open_folder(tmp_path, data_dir=tmp_path)
