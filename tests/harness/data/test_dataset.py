from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from harness.data.dataset import build_dataset, prefetch, stratified_subset
from harness.data.registry import dataset_names, open_dataset
from harness.data.sources import FolderSource
from harness.data.types import Entry, Request
from harness.errors import MsbenchError, UnknownNameError


def open_folder(path, **changes):
    return open_dataset(Request(f"folder:{path}", **{"resolution": 32} | changes))


@pytest.fixture
def mixed(tmp_path, tree):
    root = tree(tmp_path / "mixed", [f"{label}/{i}.png" for label in "ab" for i in range(8)], size=32)
    Image.new("RGB", (31, 80)).save(root / "a" / "tiny.png")
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
        assert example.image.shape == (32, 32, 3)
        assert example.image.dtype == np.uint8
    reasons = {skip.name: skip.reason for skip in dataset.skipped}
    assert set(reasons) == {"a/tiny.png", "a/broken.jpg", "b/empty.png"}
    assert "too small: 31x80" in reasons["a/tiny.png"]
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
    assert set(dataset_names()) == {*("photos", "text", "imagenette", "imagenet-val", "folder:PATH", "wds:PATTERN", "hf:FILES")}
    with pytest.raises(UnknownNameError, match="Did you mean 'imagenette'"):
        open_dataset(Request("imagenete"))
    with pytest.raises(UnknownNameError, match="split"):
        open_dataset(Request("photos", split="test"))
    with pytest.raises(MsbenchError, match=f"folder:{tmp_path}"):
        open_dataset(Request(str(tmp_path)))
    with pytest.raises(MsbenchError, match="max-samples"):
        open_dataset(Request("photos", max_samples=0))
    for resolution, trouble in (
        (-1, "small"),
        (0, "small"),
        (31, "small"),
        (8193, "large"),
        (20000, "large"),
        (10**23, "large"),
    ):
        with pytest.raises(MsbenchError, match=f"resolution too {trouble}.*{resolution}, possible are 32 to 8192"):
            open_dataset(Request("photos", resolution=resolution, allow_upsampling=True))
    with pytest.raises(MsbenchError, match="holds no image files"):
        open_folder(tmp_path)
    with pytest.raises(MsbenchError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(MsbenchError, match="once"):
        open_folder("")
    with pytest.raises(MsbenchError, match="once"):
        open_folder(tmp_path, data_dir=tmp_path)


def test_every_odd_file_is_one_skipped_file_and_never_blocks(mixed):
    """Links to nothing and to themselves, a FIFO: named with a reason, while all others are used."""
    plain = len(list(open_folder(mixed)))
    (mixed / "dangling.jpg").symlink_to("nowhere.jpg")
    (mixed / "loop1.jpg").symlink_to("loop2.jpg")
    (mixed / "loop2.jpg").symlink_to("loop1.jpg")
    (mixed / "a" / "itself").symlink_to(".")
    os.mkfifo(mixed / "b" / "fifo.jpg")
    dataset = open_folder(mixed)
    assert len(list(dataset)) == plain
    reasons = {skip.name: skip.reason for skip in dataset.skipped}
    assert "No such file" in reasons["dangling.jpg"]
    assert "symbolic links" in reasons["loop1.jpg"]
    assert "symbolic links" in reasons["loop2.jpg"]
    assert "FIFO" in reasons["b/fifo.jpg"]
    assert dataset.info.n_available == 19 + 4
    assert "left out: a/itself/ (a loop of links)" in dataset.info.note


def test_a_file_or_folder_that_may_not_be_read_is_named(mixed, monkeypatch):
    # The tests may run as root, whom no mode stops.
    (mixed / "closed").mkdir()
    scandir, stat = os.scandir, Path.stat

    def refuse(real, name):
        def call(path, **options):
            if Path(path).name == name:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, **options)

        return call

    monkeypatch.setattr(os, "scandir", refuse(scandir, "closed"))
    monkeypatch.setattr(Path, "stat", refuse(stat, "1.png"))
    dataset = open_folder(mixed)
    assert len(list(dataset)) == 14
    assert {skip.name: skip.reason for skip in dataset.skipped}["a/1.png"] == "cannot be read: Permission denied"
    assert "closed/ (cannot be listed: Permission denied)" in dataset.info.note


@pytest.mark.parametrize("marker", ["record.json", ".msbench-images", "sweep.parquet", "state.pt"])
def test_outputs_below_the_data_are_no_data(mixed, marker):
    before = open_folder(mixed)
    for name in ("out/reference/x.png", "deep/er/y.png"):
        (mixed / name).parent.mkdir(parents=True)
        shutil.copy(mixed / "a" / "0.png", mixed / name)
    (mixed / "out" / marker).touch()
    (mixed / "deep" / "er" / marker).touch()
    after = open_folder(mixed)
    assert after.entries == before.entries
    assert "left out: deep/er/ (made by msbench), out/ (made by msbench)" in after.info.note
    assert len(open_folder(mixed / "out")) == 1  # named itself, it is what the user wants
    assert before.holds(mixed / "out" / "new")
    assert not before.holds(mixed.parent / "elsewhere")


def test_many_folders_left_out_are_counted(tmp_path, tree):
    root = tree(tmp_path / "many", ["a.png", *(f"r{i}/{name}" for i in range(7) for name in ("x.png",))], size=32)
    for i in range(7):
        (root / f"r{i}" / "record.json").touch()
    assert open_folder(root).info.note.endswith("r4/ (made by msbench) and 2 more")


def test_names_that_are_not_utf8_are_kept_and_storable(tmp_path, picture):
    root = os.fsencode(tmp_path) + b"/names"
    names = [b"caf\xe9/0.png", b"caf\xe9/1.png", b"tea/2.png", b"\xff.png", b"\xfe.png"]
    for seed, name in enumerate(names):
        os.makedirs(os.path.dirname(root + b"/" + name), exist_ok=True)
        picture(32, 32, seed).save(os.fsdecode(root + b"/" + name))
    with open(root + b"/broken\xe9.jpg", "wb"):
        pass
    dataset = open_folder(os.fsdecode(root))
    examples = list(dataset)
    assert len({example.key for example in examples}) == len(names)
    assert [example.label for example in examples].count("caf\\xe9") == 2
    assert [(skip.name, skip.reason) for skip in dataset.skipped] == [("broken\\xe9.jpg", "empty file")]
    assert open_folder(os.fsdecode(root + b"/caf\xe9")).info.name.endswith("caf\\xe9")
    texts = [dataset.info.name, dataset.info.note, *(example.key for example in examples), *(e.label or "" for e in examples)]
    "".join(texts).encode("utf-8")  # raises on a lone surrogate
    assert len(open_folder(os.fsdecode(root), max_samples=3)) == 3


def test_one_key_twice_is_refused(tmp_path, tree, request_for):
    entries = [Entry("x", name, None, "x") for name in ("a/x.png", "b/x.png")]
    source = FolderSource(tree(tmp_path, ["a/x.png", "b/x.png"]))
    with pytest.raises(MsbenchError, match="imagenette: x is there more than once"):
        build_dataset(request_for("imagenette"), entries, source, resolution=32, notes=[])


def test_the_subset_is_named_only_where_one_was_drawn(mixed, tmp_path, tree):
    assert open_folder(mixed).info.subset == open_folder(mixed, max_samples=19).info.subset == ""
    assert open_folder(mixed, max_samples=18).info.subset == "stratified by class"
    flat = open_folder(tree(tmp_path / "flat", ["a.png", "b.png"], size=32), max_samples=1)
    assert flat.info.subset == "unlabelled"
    assert "unlabelled, drawn uniformly" in flat.info.note
    assert open_dataset(Request("photos", max_samples=4)).info.subset == "stratified by photograph"


def test_the_subset_does_not_depend_on_what_folders_are_called(tmp_path, tree):
    """Six classes of seven images, under three sets of class names, in three orders."""
    chosen = []
    for names in ("abcdef", "fedcba", ["n02", "n09", "x", "00", "Z", "é"]):
        files = [f"{names[i % 6]}/photo{i}.png" for i in range(42)]
        root = tree(tmp_path / names[0], files, size=32)
        chosen.append([open_folder(root, max_samples=count, seed=seed) for count in (3, 10) for seed in range(3)])
    stems = [[{Path(entry.name).stem for entry in dataset.entries} for dataset in datasets] for datasets in chosen]
    assert stems[0] == stems[1] == stems[2]
    assert len({tuple(sorted(some)) for some in stems[0]}) == 6


# --- subsets ---------------------------------------------------------------------------------------------------------------

SIZES = {"a": 50, "b": 30, "c": 13, "d": 7}
ITEMS = [(f"{label}{i:03d}", label) for label, size in SIZES.items() for i in range(size)]


def draw(items, count, seed=0):
    keys, strata = [key for key, _ in items], [label for _, label in items]
    return [items[index] for index in stratified_subset(keys, strata, count, seed)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 50, 99])
def test_shares_are_proportional_within_one(count):
    for seed in range(5):
        chosen = draw(ITEMS, count, seed)
        assert len(set(chosen)) == count
        taken = Counter(label for _, label in chosen)
        assert all(abs(taken[label] - count * size / 100) < 1 for label, size in SIZES.items())


def test_file_order_does_not_matter():
    shuffled = ITEMS.copy()
    Random(3).shuffle(shuffled)
    assert set(draw(ITEMS, 20)) == set(draw(shuffled, 20))


def test_seeds_differ_and_repeat():
    assert draw(ITEMS, 20, 1) == draw(ITEMS, 20, 1)
    assert draw(ITEMS, 20, 1) != draw(ITEMS, 20, 2)


def test_more_than_there_is_takes_all():
    assert draw(ITEMS, 1000) == ITEMS
    assert draw(ITEMS, 100) == ITEMS


def test_balanced_classes_differ_by_at_most_one():
    items = [(f"{label}-{i}", str(label)) for label in range(10) for i in range(20)]
    taken = Counter(label for _, label in draw(items, 33))
    assert sorted(taken.values()) == [3] * 7 + [4] * 3


def test_fewer_items_than_classes_reach_every_class_over_seeds():
    taken = Counter(label for seed in range(400) for _, label in draw(ITEMS, 1, seed))
    # 400 draws of one item: the shares follow the sizes, within five standard deviations.
    for label, size in SIZES.items():
        share = size / 100
        assert abs(taken[label] - 400 * share) < 5 * (400 * share * (1 - share)) ** 0.5


def test_strata_are_known_by_their_members_not_by_their_names():
    renamed = [(name, {"a": "z", "b": "9", "c": "", "d": "é"}[label]) for name, label in ITEMS]
    for count in (1, 3, 20, 60):
        for seed in range(4):
            assert [name for name, _ in draw(ITEMS, count, seed)] == [name for name, _ in draw(renamed, count, seed)]


# --- made ahead ------------------------------------------------------------------------------------------------------------


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("msbench-data")]


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_same_items_in_the_same_order(ahead: int) -> None:
    assert list(prefetch(range(20), ahead)) == list(range(20))
    assert list(prefetch([], ahead)) == []
    assert list(prefetch([None, 0, False], ahead)) == [None, 0, False]
    assert not _threads()


def test_no_more_than_asked_for_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            made.append(item)
            yield item

    ahead = prefetch(items(), ahead=2)
    assert next(ahead) == 0
    for _ in range(200):
        if len(made) >= 3:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2]  # one taken, two ahead
    assert list(ahead) == list(range(1, 10))


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk gone")

    ahead = prefetch(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)
    assert not _threads()


@pytest.mark.parametrize("ahead", [1, 3])
def test_closing_early_ends_the_thread_and_the_items(ahead: int) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    taken = prefetch(items(), ahead)
    assert next(taken) == 0
    taken.close()
    assert closed.is_set()
    assert not _threads()
