from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from harness.data.photos import PHOTOS, find_photo, grid_corners, open_photos
from harness.errors import MsbenchError


def test_fifteen_disjoint_crops_of_seven_photographs(request_for):
    dataset = open_photos(request_for("photos", resolution=None))
    examples = list(dataset)
    assert len(examples) == 15
    assert dataset.skipped == []
    assert dataset.info.demo
    assert "smoke test" in dataset.info.note
    assert Counter(example.source_photo for example in examples) == {
        "astronaut": 4,
        "chelsea": 1,
        "china": 2,
        "coffee": 2,
        "flower": 2,
        "motorcycle": 2,
        "rocket": 2,
    }
    assert all(example.image.shape == (256, 256, 3) for example in examples)
    assert all(np.ptp(example.image.astype(int), axis=-1).max() > 20 for example in examples)  # colour, not grey
    assert len({example.image.tobytes() for example in examples}) == 15
    hashes = {(example.source_photo, example.source_sha256) for example in examples}
    assert len(hashes) == 7


@pytest.mark.parametrize(("width", "height", "tile"), [(741, 500, 256), (512, 512, 256), (451, 300, 64), (255, 900, 256)])
def test_grid_is_centred_disjoint_and_inside(width, height, tile):
    corners = [(left, top) for _, _, left, top in grid_corners(width, height, tile)]
    assert len(corners) == (width // tile) * (height // tile)
    for left, top in corners:
        assert 0 <= left <= width - tile
        assert 0 <= top <= height - tile
    assert all(abs(a[0] - b[0]) >= tile or abs(a[1] - b[1]) >= tile for a, b in combinations(corners, 2))
    if corners:
        margin = min(left for left, _ in corners), width - tile - max(left for left, _ in corners)
        assert abs(margin[0] - margin[1]) <= 1


def test_other_resolutions_and_subsets(request_for):
    assert len(open_photos(request_for("photos", resolution=128))) > 40
    assert [entry.key for entry in open_photos(request_for("photos", resolution=512)).entries] == ["astronaut-r0c0"]
    some = open_photos(request_for("photos", resolution=256, max_samples=7))
    assert all(count <= 2 for count in Counter(entry.source_photo for entry in some.entries).values())


def test_bad_input_is_named(request_for, tmp_path, monkeypatch):
    with pytest.raises(MsbenchError, match="512 or less"):
        open_photos(request_for("photos", resolution=600))
    with pytest.raises(MsbenchError, match="train"):
        open_photos(request_for("photos", split="train"))
    with pytest.raises(MsbenchError, match="data-dir"):
        open_photos(request_for("photos", data_dir=tmp_path))
    with pytest.raises(MsbenchError, match=r"pip install.*scikit-image"):
        find_photo(replace(PHOTOS[0], path="data/no_such_file.png"))
    broken = tmp_path / "astronaut.png"
    broken.write_bytes(b"cut")
    monkeypatch.setattr("harness.data.photos.find_photo", lambda photo: broken)
    with pytest.raises(MsbenchError, match=r"cannot be read.*pip install"):
        open_photos(request_for("photos"))
    with pytest.raises(MsbenchError, match="pip install"):
        find_photo(replace(PHOTOS[0], package="no_such_package"))
