from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.data.imagenet import TAR_NAME, Expected, open_imagenet_val
from harness.errors import MsbenchError

LAYOUTS = Path(__file__).resolve().parents[4] / "shared" / "cases" / "layouts.py"
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
    assert (bare.info.classes, "no labels found" in bare.info.note) == (0, True)

    kit = flat / "ILSVRC2012_validation_ground_truth.txt"
    kit.write_text("".join(f"{i % 4 + 1}\n" for i in range(12)))
    labelled = open_imagenet_val(request_for("imagenet-val", flat, max_samples=4), SMALL)
    assert sorted(entry.label for entry in labelled.entries) == ["1", "2", "3", "4"]
    kit.write_text("1\n2\n")
    with pytest.raises(MsbenchError, match="has 2 of 12 labels"):
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
    fails(tree(tmp_path / "other", ["x/y.png"]), "has neither ILSVRC2012_val_")
    fails(tree(tmp_path / "train-only" / "train", ["n00000000/n00000000_1.JPEG"]).parent, "training images")
    fails(tree(tmp_path / "bare-train", ["n00000000/n00000000_1.JPEG"]), "training images")
    fails(classes, "images in 4 folders; keep the 3 class folders", Expected(classes=3, images=12))
    fails(flat, f"holds {KEYS[11]}, which is none of the 11 validation images", Expected(classes=4, images=11))
    shutil.copy(classes / WNIDS[0] / f"{KEYS[0]}.JPEG", classes / f"{KEYS[0]}.JPEG")
    fails(classes, "images in 5 folders")
    shutil.move(classes / f"{KEYS[0]}.JPEG", classes / WNIDS[1] / f"{KEYS[0]}.JPEG")
    fails(classes, f"{KEYS[0]} is there more than once")
    with pytest.raises(MsbenchError, match="measuring only"):
        open_imagenet_val(request_for("imagenet-val", flat, split="train"), SMALL)


def test_a_partial_set_is_measured_and_says_so(flat, classes, tmp_path, pack, request_for):
    full = open_imagenet_val(request_for("imagenet-val", flat), SMALL)
    assert (full.info.partial, "partial" in full.info.note) == (False, False)
    for place in (flat, classes, pack(flat, tmp_path / TAR_NAME)):
        dataset = open_imagenet_val(request_for("imagenet-val", place))  # 12 of 50,000
        assert (dataset.info.partial, dataset.info.n_available) == (True, 12)
        assert "partial: 12 of 50,000 images" in dataset.info.note
        assert [example.key for example in dataset] == KEYS
    for wnid in WNIDS[:3]:
        shutil.rmtree(classes / wnid)
    alone = open_imagenet_val(request_for("imagenet-val", classes), SMALL)
    assert {entry.label for entry in alone.entries} == {WNIDS[3]}  # one class folder is a class too
    (flat / f"{KEYS[0]}.JPEG").rename(flat / f"{KEYS[0]}.png")
    renamed = open_imagenet_val(request_for("imagenet-val", flat), SMALL)
    assert len(renamed) == 11
    assert "1 images ignored" in renamed.info.note


def csv(header, rest, start="", end="\n"):
    rows = [f"{key},{wnid}{rest}" for key, wnid in zip(KEYS, WNIDS, strict=True)]
    return (start + end.join([header, *rows, ""])).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOC_val_solution.csv", csv("ImageId,PredictionString", " 1 2 3 4 ")),
        ("LOC_val_solution.csv", csv("ImageId,PredictionString", " 1 2 3 4", "\ufeff", "\r\n")),
        ("val_labels.csv", csv("ImageId,Class", "")),
        ("val_labels.csv", csv("ImageId,Class", "", "\ufeff", "\r\n")),
        ("ILSVRC2012_validation_ground_truth.txt", "".join(f"{i % 4 + 1}\n" for i in range(12)).encode()),
        ("ILSVRC2012_validation_ground_truth.txt", b"\xef\xbb\xbf" + b"".join(b"%d\r\n" % (i % 4 + 7) for i in range(12))),
    ],
)
def test_one_seed_draws_the_same_images_from_every_labelled_layout(flat, classes, request_for, name, content):
    def draw(place, count, seed):
        return open_imagenet_val(request_for("imagenet-val", place, max_samples=count, seed=seed), SMALL)

    (flat / name).write_bytes(content)
    numbered = flat.parent / "numbered"
    shutil.copytree(classes, numbered)
    for i, folder in enumerate(sorted(numbered.iterdir(), reverse=True)):
        folder.rename(numbered / f"{i:03d}")
    for count in (1, 3, 6):
        for seed in range(3):
            wanted = [entry.key for entry in draw(classes, count, seed).entries]
            for place in (flat, numbered):
                dataset = draw(place, count, seed)
                assert [entry.key for entry in dataset.entries] == wanted
                assert dataset.info.subset == "stratified by class"
    (flat / name).unlink()
    assert draw(flat, 6, 0).info.subset == "unlabelled"


@pytest.mark.parametrize(
    ("name", "content", "trouble"),
    [
        ("ILSVRC2012_validation_ground_truth.txt", b"\xff\xfe1\n2\n", "cannot be read as UTF-8 text"),
        ("ILSVRC2012_validation_ground_truth.txt", b"1\n" * 13, "has 13 of 12 labels"),
        ("val_labels.csv", b"", "has no label for 12 images"),
        ("val_labels.csv", csv("ImageId,Class", "").replace(b"00000003", b"00000099"), "has no label for 1 images"),
        (
            "val_labels.csv",
            b"ImageId,Class\n" + b"".join(b"%s,%s\n" % (k.encode(), k.encode()) for k in KEYS),
            "has 12 classes",
        ),
    ],
)
def test_odd_label_files_are_one_line(flat, request_for, name, content, trouble):
    (flat / name).write_bytes(content)
    with pytest.raises(MsbenchError, match=rf"{name} {trouble}[^\n]*replace or remove it$"):
        open_imagenet_val(request_for("imagenet-val", flat), SMALL)


def test_a_link_that_leads_nowhere_does_not_hide_the_set(flat, request_for):
    (flat / "loop").symlink_to("loop")
    assert len(open_imagenet_val(request_for("imagenet-val", flat), SMALL)) == 12


@pytest.mark.skipif(not LAYOUTS.is_file(), reason="the shared cases are not beside this checkout")
def test_the_shared_layouts():
    ran = subprocess.run([sys.executable, LAYOUTS], capture_output=True, text=True, check=True)
    shared = re.findall(r"^(\w+) images shared with class folders: 10 of 10$", ran.stdout, re.MULTILINE)
    assert {"classes", "kit", "kaggle", "numbered", "timmcsv"} <= set(shared)
