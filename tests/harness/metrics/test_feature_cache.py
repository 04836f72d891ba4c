from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from harness.files import features_dir
from harness.metrics import feature_cache
from harness.metrics.feature_cache import FeatureCache, Features, pixels_sha256

IDENTITY = {"dataset": "photos", "split": None, "resolution": 8, "preprocessing": "crop-v1", "extractor": "network 1"}


class Extractor:
    """Features that name their image, and a count of the images seen."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.seen = images, 0

    def __call__(self, places: list[int]) -> Features:
        self.seen += len(places)
        return self.images[places].reshape(len(places), -1)[:, :5].astype(np.float32)


def _images(count: int = 6) -> tuple[np.ndarray, list[bytes], Extractor]:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return images, [pixels_sha256(image) for image in images], Extractor(images)


def _fill(folder: Path, count: int = 6) -> Path:
    _, keys, extractor = _images(count)
    cache = FeatureCache(folder, IDENTITY)
    cache.features(keys, extractor)
    cache.save()
    assert cache.path is not None
    return cache.path


def test_a_second_run_computes_nothing_in_any_order_and_batch(tmp_path: Path) -> None:
    path = _fill(tmp_path / "new" / "folder")
    assert path.stat().st_mode & 0o044 == 0o044  # readable for others: a shared cache
    images, keys, extractor = _images()
    again = FeatureCache(path.parent, IDENTITY)
    order = [4, 0, 5]
    found = again.features([keys[i] for i in order], extractor)
    assert extractor.seen == 0
    assert found.dtype == np.float32
    assert np.array_equal(found, Extractor(images)(order))


def test_only_new_pixels_are_computed(tmp_path: Path) -> None:
    path = _fill(tmp_path, 4)
    images, keys, extractor = _images(6)
    cache = FeatureCache(path.parent, IDENTITY)
    assert np.array_equal(cache.features(keys, extractor), Extractor(images)(list(range(6))))
    assert extractor.seen == 2
    changed = images[0].copy()
    changed[7, 7, 2] ^= 1
    assert pixels_sha256(changed) not in keys
    assert pixels_sha256(images[0].reshape(4, 16, 3)) not in keys


@pytest.mark.parametrize("field", sorted(IDENTITY))
def test_another_set_or_extractor_has_another_file(tmp_path: Path, field: str) -> None:
    other = FeatureCache(tmp_path, {**IDENTITY, field: "other"})
    assert other.path != FeatureCache(tmp_path, IDENTITY).path


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = _fill(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"cut": data[:-9], "flipped": data, "empty": b"", "foreign": b"not safetensors at all"}[damage])
    images, keys, extractor = _images()
    cache = FeatureCache(tmp_path, IDENTITY)
    assert np.array_equal(cache.features(keys, extractor), Extractor(images)(list(range(6))))
    assert extractor.seen == 6
    assert str(path) in caplog.text
    cache.save()
    whole = FeatureCache(tmp_path, IDENTITY)
    whole.features(keys, extractor)
    assert extractor.seen == 6


def test_two_runs_at_once_keep_both_halves(tmp_path: Path) -> None:
    _, keys, extractor = _images()
    first, second = FeatureCache(tmp_path, IDENTITY), FeatureCache(tmp_path, IDENTITY)
    first.features(keys[:3], extractor)
    second.features(keys[3:], lambda places: extractor([place + 3 for place in places]))
    first.save()
    second.save()
    FeatureCache(tmp_path, IDENTITY).features(keys, extractor)
    assert extractor.seen == 6
    assert [file.name for file in tmp_path.iterdir()] == [first.path.name if first.path else ""]


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    _, keys, extractor = _images()
    cache = FeatureCache(tmp_path / "file", IDENTITY)
    cache.features(keys, extractor)
    cache.save()
    assert caplog.text.count("not kept for later runs") == 1


def test_nothing_is_written_without_news_or_a_folder(tmp_path: Path) -> None:
    path = _fill(tmp_path)
    os.utime(path, (1, 1))
    _, keys, extractor = _images()
    cache = FeatureCache(tmp_path, IDENTITY)
    cache.features(keys, extractor)
    cache.save()
    assert path.stat().st_mtime == 1
    nowhere = FeatureCache(None, IDENTITY)
    assert len(nowhere.features(keys, extractor)) == 6
    nowhere.save()


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MOST_ROWS", 4)
    path = _fill(tmp_path)
    _, keys, extractor = _images()
    FeatureCache(tmp_path, IDENTITY).features(keys, extractor)
    assert extractor.seen == 2
    monkeypatch.setattr(feature_cache, "MOST_BYTES", path.stat().st_size)
    os.utime(path, (1, 1))
    other = FeatureCache(tmp_path, {**IDENTITY, "resolution": 9})
    other.features(keys, extractor)
    other.save()
    assert list(tmp_path.iterdir()) == [other.path]


def test_the_environment_chooses_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSBENCH_FEATURES", str(tmp_path))
    assert features_dir() == tmp_path
    monkeypatch.setenv("MSBENCH_FEATURES", "off")
    assert features_dir() is None
    monkeypatch.delenv("MSBENCH_FEATURES")
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path))
    assert features_dir() == tmp_path / "features"
