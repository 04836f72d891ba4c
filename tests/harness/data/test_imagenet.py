from __future__ import annotations

import shutil

import pytest

from harness.data.imagenet import TAR_NAME, Expected, open_imagenet_val
from harness.errors import MsbenchError

SMALL = Expected(classes=4, images=12)
KEYS = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 13)]
WNIDS = [f"n0000000{i % 4}" for i in range(12)]


@pytest.fixture
def flat(tmp_path, tree):
    return tree(tmp_path / "flat", [f"{key}.JPEG" for key in KEYS])


@pytest.fixture
def classes(tmp_path, tree):
    return tree(tmp_path / "classes" / "val", [f"{wnid}/{key}.JPEG" for key, wnid in zip(KEYS, WNIDS, strict=True)])


def test_every_layout_is_the_same_dataset(flat, classes, tmp_path, tree, pack, request_for):
    tree(classes.parent / "train", ["n00000000/n00000000_1.JPEG"])
    official = tmp_path / "official"
    official.mkdir()
    pack(flat, official / TAR_NAME)
    digests = []
    for place in (flat, classes, classes.parent, official, official / TAR_NAME):
        dataset = open_imagenet_val(request_for("imagenet-val", place), SMALL)
        examples = list(dataset)
        assert [example.key for example in examples] == KEYS
        assert dataset.info.n_available == 12
        digests.append([example.source_sha256 for example in examples])
    assert all(digest == digests[0] for digest in digests)


def test_labels_come_from_folders_or_a_file_beside_a_flat_set(flat, classes, request_for):
    assert [entry.label for entry in open_imagenet_val(request_for("imagenet-val", classes), SMALL).entries] == WNIDS
    bare = open_imagenet_val(request_for("imagenet-val", flat), SMALL)
    assert (bare.info.classes, "uniform" in bare.info.note) == (0, True)

    kit = flat / "ILSVRC2012_validation_ground_truth.txt"
    kit.write_text("".join(f"{i % 4 + 1}\n" for i in range(12)))
    labelled = open_imagenet_val(request_for("imagenet-val", flat, max_samples=4), SMALL)
    assert sorted(entry.label for entry in labelled.entries) == ["1", "2", "3", "4"]
    kit.write_text("1\n2\n")
    with pytest.raises(MsbenchError, match="no label for 10 images"):
        open_imagenet_val(request_for("imagenet-val", flat), SMALL)

    rows = [f"{key},{wnid} 1 2 3 4 \n" for key, wnid in zip(KEYS, WNIDS, strict=True)]
    (flat / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    assert [entry.label for entry in open_imagenet_val(request_for("imagenet-val", flat), SMALL).entries] == WNIDS


def test_small_images_are_enlarged_and_the_record_says_so(flat, request_for):
    dataset = open_imagenet_val(request_for("imagenet-val", flat, resolution=32), SMALL)
    assert len(list(dataset)) == 12
    assert dataset.info.preprocessing.endswith("upsample")
    assert "enlarged" in dataset.info.note


def test_wrong_or_incomplete_sets_are_named(flat, classes, tmp_path, tree, request_for):
    def fails(place, match, expected=SMALL):
        with pytest.raises(MsbenchError, match=match):
            open_imagenet_val(request_for("imagenet-val", place), expected)

    fails(None, "needs --data-dir")
    fails(tmp_path / "nowhere", "does not exist")
    fails(tree(tmp_path / "other", ["x/y.png"]), "holds no ILSVRC2012_val_")
    fails(tree(tmp_path / "train-only" / "train", ["n00000000/n00000000_1.JPEG"]).parent, "training images")
    fails(tree(tmp_path / "bare-train", ["n00000000/n00000000_1.JPEG"]), "training images")
    fails(classes, "has 4 of 1,000 class folders", Expected())
    fails(flat, "holds 12 of 50,000 images", Expected())
    (flat / f"{KEYS[0]}.JPEG").unlink()
    fails(flat, "holds 11 of 12 images")
    shutil.copy(classes / WNIDS[0] / f"{KEYS[0]}.JPEG", classes / WNIDS[1] / f"{KEYS[0]}.JPEG")
    fails(classes, f"holds {KEYS[0]} more than once")
    shutil.rmtree(classes / WNIDS[2])
    fails(classes, "has 3 of 4 class folders")
    with pytest.raises(MsbenchError, match="measuring only"):
        open_imagenet_val(request_for("imagenet-val", flat, split="train"), SMALL)
