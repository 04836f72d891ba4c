from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.data.imagenette import CLASSES, SPLITS, open_imagenette
from harness.errors import MsbenchError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
EXPECTED = {"train": 20, "val": 20}
WNIDS = sorted(CLASSES)
TRAIN = [f"train/{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(2)]
LEAKED = [f"train/{wnid}/ILSVRC2012_val_0000000{i}.JPEG" for i, wnid in enumerate(WNIDS[:3])]
VAL = [f"val/{wnid}/{wnid}_9{i}.JPEG" for wnid in WNIDS for i in range(2)]


@pytest.fixture
def root(tmp_path, tree):
    return tree(tmp_path / "nette", TRAIN + LEAKED + VAL)


def keys(dataset):
    return [entry.key for entry in dataset.entries]


def test_every_layout_is_the_same_dataset(root, tmp_path, pack, request_for):
    wanted = keys(open_imagenette(request_for("imagenette", root), EXPECTED))
    assert len(wanted) == 20
    tar = pack(root, tmp_path / "imagenette-16-val.tar")
    parent = tmp_path / "torchvision"
    parent.mkdir()
    (parent / "imagenette2-320").symlink_to(root)
    for place in (tar, tmp_path, parent, root / "val"):
        dataset = open_imagenette(request_for("imagenette", place), EXPECTED)
        assert keys(dataset) == wanted
        assert len(list(dataset)) == 20
        assert dataset.info.classes == 10


def test_imagenets_validation_images_are_never_trained_on(root, tmp_path, pack, request_for):
    for place in (root, pack(root, tmp_path / "x.tar")):
        dataset = open_imagenette(request_for("imagenette", place, split="train"), EXPECTED)
        assert not any("ILSVRC2012_val_" in key for key in keys(dataset))
        assert len(dataset) == 20
        assert "3 files left out" in dataset.info.note
    assert open_imagenette(request_for("imagenette", root), EXPECTED).info.note == ""


def test_upsampling_is_refused_at_once(root, request_for):
    with pytest.raises(MsbenchError, match=r"16 px natively.*--resolution 16"):
        open_imagenette(request_for("imagenette", root, resolution=32), EXPECTED)
    dataset = open_imagenette(request_for("imagenette", root, resolution=32, allow_upsampling=True), EXPECTED)
    assert next(iter(dataset)).image.shape == (32, 32, 3)
    assert next(iter(open_imagenette(request_for("imagenette", root, resolution=8), EXPECTED))).image.shape == (8, 8, 3)


def test_wrong_or_incomplete_folders_are_named(root, tmp_path, pack, tree, request_for):
    with pytest.raises(MsbenchError, match="20 of 3,925 val images"):
        open_imagenette(request_for("imagenette", root))
    with pytest.raises(MsbenchError, match="does not exist"):
        open_imagenette(request_for("imagenette", tmp_path / "nowhere"))
    with pytest.raises(MsbenchError, match="no val/ with class folders"):
        open_imagenette(request_for("imagenette", root / "train"))
    only_train = pack(tree(tmp_path / "part", TRAIN), tmp_path / "part.tar")
    with pytest.raises(MsbenchError, match="holds no val images"):
        open_imagenette(request_for("imagenette", only_train), EXPECTED)
    pack(root, root / "imagenette-16-val.tar")
    with pytest.raises(MsbenchError, match="more than once"):
        open_imagenette(request_for("imagenette", root), EXPECTED)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "imagenette2-320.tgz").write_bytes(b"")
    with pytest.raises(MsbenchError, match=r"unpack imagenette2-320\.tgz"):
        open_imagenette(request_for("imagenette", tmp_path / "packed"))


def test_download_is_whole_or_absent(tmp_path, tree, request_for, monkeypatch):
    import torchvision.datasets

    calls = []

    def fetch(root, split, size, download):
        calls.append(root)
        tree(Path(root) / "imagenette2-320", VAL)
        if len(calls) == 1:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets, "Imagenette", fetch)
    with pytest.raises(MsbenchError, match="--offline"):
        open_imagenette(request_for("imagenette"), EXPECTED)
    with pytest.raises(MsbenchError, match="no download to"):
        open_imagenette(request_for("imagenette", offline=False), EXPECTED)
    assert list((tmp_path / "cache" / "imagenette").iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(MsbenchError, match=r"no download to .*file"):
        open_imagenette(request_for("imagenette", offline=False), EXPECTED)
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache"))
    for offline in (False, True):
        assert len(open_imagenette(request_for("imagenette", offline=offline), EXPECTED)) == 20
    assert len(calls) == 2


@pytest.mark.skipif(
    not (SHARED / "imagenette-224-val.tar").is_file(), reason="the Imagenette tars are not beside this checkout"
)
def test_the_real_tars(request_for):
    val = open_imagenette(request_for("imagenette", SHARED, resolution=None, max_samples=30))
    assert (val.info.n_available, val.info.resolution) == (SPLITS["val"], 224)
    assert set(Counter(entry.label for entry in val.entries).values()) <= {2, 3, 4}
    train = open_imagenette(request_for("imagenette", SHARED / "imagenette-224-train.tar", resolution=None, split="train"))
    assert len(train) == SPLITS["train"]
    assert not any("ILSVRC2012_val_" in entry.name for entry in train.entries)
    examples = list(val.stream([0, 1, 2]))
    assert [example.image.shape for example in examples] == [(224, 224, 3)] * 3
    assert all(np.std(example.image) > 5 for example in examples)
    with pytest.raises(MsbenchError, match="224 px natively"):
        open_imagenette(request_for("imagenette", SHARED, resolution=256))
