"""Sets in WebDataset tars and in parquet: the same samples, order, subset and pixels as their folders."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from pyarrow import parquet

from harness.data.dataset import Dataset
from harness.data.imagenet import Expected, open_imagenet_val
from harness.data.registry import open_dataset
from harness.data.shards import expand
from harness.data.types import Request
from harness.errors import MsbenchError

KEYS = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 25)]
CLASSES = [f"n0000000{i * 7 % 4}" for i in range(24)]
SMALL = Expected(classes=4, images=24)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def folders(tmp_path: Path, tree: Any) -> Path:
    """24 images in four class folders, 40 px."""
    return Path(tree(tmp_path / "val", [f"{c}/{key}.JPEG" for key, c in zip(KEYS, CLASSES, strict=True)], size=40))


def images(folders: Path, suffix: str = ".JPEG") -> list[tuple[str, str, bytes]]:
    """(key, class, bytes) in an order that is not that of the keys."""
    rows = [(key, c, (folders / c / f"{key}.JPEG").read_bytes()) for key, c in zip(KEYS, CLASSES, strict=True)]
    return [rows[i * 5 % 24] for i in range(24)]


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_shards(folders: Path, to: Path, inside: str = "") -> str:
    rows = images(folders)
    for shard in range(3):
        files = {}
        for key, c, data in rows[shard * 8 : shard * 8 + 8]:
            name = f"{inside.format(c)}{key}"
            files |= {f"{name}.jpg": data, f"{name}.json": b"{}"}
            if not inside:
                files[f"{name}.cls"] = f"{int(c[-1])}\n".encode()
        write_tar(to / f"v-{shard:03d}.tar", files)
    return f"{to}/v-{{000..002}}.tar"


def write_parquet(folders: Path, to: Path, name: str = "{}_{}.JPEG", paths: bool = True) -> str:
    to.mkdir(parents=True, exist_ok=True)
    rows = images(folders)
    for part in range(2):
        some = rows[part * 12 : part * 12 + 12]
        column = [{"bytes": data, "path": name.format(key, c) if paths else None} for key, c, data in some]
        table = pa.table({"image": pa.array(column, IMAGE), "label": [int(c[-1]) for _, c, _ in some]})
        parquet.write_table(table, to / f"validation-{part:05d}-of-00002.parquet", row_group_size=5)
    return f"{to}/validation-*.parquet"


def facts(dataset: Dataset) -> list[tuple[str, str, bytes]]:
    return [(one.key, one.source_sha256, one.image.tobytes()) for one in dataset]


@pytest.mark.parametrize("chosen", [None, 9])
def test_imagenet_of_tars_and_parquet_is_that_of_class_folders(folders: Path, tmp_path: Path, chosen: int | None) -> None:
    places = [folders, f"wds:{write_shards(folders, tmp_path / 'a')}", f"hf:{write_parquet(folders, tmp_path / 'b')}"]
    opened = [
        open_imagenet_val(Request("imagenet-val", Path(place), 32, chosen, seed=3, split="val"), SMALL) for place in places
    ]
    assert facts(opened[0]) == facts(opened[1]) == facts(opened[2])
    assert len(opened[0]) == (chosen or 24)
    assert [one.info.subset for one in opened] == ["stratified by class" if chosen else ""] * 3
    for key in ("partial", "n_available", "classes", "preprocessing", "split"):
        assert len({getattr(one.info, key) for one in opened}) == 1, key


def test_a_folder_and_its_tars_are_one_dataset(folders: Path, tmp_path: Path) -> None:
    """Keys, labels and order too, where the tars keep the folders."""
    pattern = write_shards(folders, tmp_path / "a", "{}/")
    one, other = (open_dataset(Request(name, resolution=32)) for name in (f"folder:{folders}", f"wds:{pattern}"))
    assert facts(one) == facts(other)
    assert [entry.label for entry in one.entries] == [entry.label for entry in other.entries]


def test_every_form_draws_the_same_subset(folders: Path, tmp_path: Path) -> None:
    shards, rows = write_shards(folders, tmp_path / "a"), write_parquet(folders, tmp_path / "b", "{}.JPEG")
    names = [f"folder:{folders}", f"wds:{shards}", f"hf:{rows}"]
    drawn = [
        {one.source_sha256 for one in open_dataset(Request(n, resolution=32, max_samples=7, seed=s))}
        for n in names
        for s in (0, 1)
    ]
    assert drawn[0] == drawn[2] == drawn[4] != drawn[1] == drawn[3] == drawn[5]
    assert open_dataset(Request(names[1], max_samples=7)).info.classes == 4


def test_parts_of_a_set_are_read_alone(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of a run: three rows of parquet touch at most three row groups, each once, in whatever order."""
    dataset = open_dataset(Request(f"hf:{write_parquet(folders, tmp_path / 'b')}", resolution=32))
    groups = []
    real = parquet.ParquetFile.iter_batches

    def counted(self: Any, rows: int, row_groups: list[int], columns: list[str]) -> Any:
        groups.append(tuple(row_groups))
        return real(self, rows, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
    wanted = [17, 2, 9]
    assert [one.key for one in dataset.stream(wanted)] == [dataset.entries[i].key for i in wanted]
    assert 1 <= len(groups) <= 3
    list(dataset)
    list(dataset)
    assert len(groups) == 6  # 12 rows in groups of 5, two files


def test_rows_without_names_are_numbered(folders: Path, tmp_path: Path) -> None:
    dataset = open_dataset(Request(f"hf:{write_parquet(folders, tmp_path / 'b', paths=False)}", resolution=32))
    assert [entry.key for entry in dataset.entries] == [f"{i:06d}" for i in range(24)]
    assert [one.source_sha256 for one in dataset] == [one[1] for one in facts(dataset)]
    twice = open_dataset(Request(f"hf:{write_parquet(folders, tmp_path / 'c', name='../../{1}.png')}", resolution=32))
    assert twice.entries[0].key == "000000"  # one name for several rows is none


def test_a_plain_column_of_bytes_and_a_row_without(folders: Path, tmp_path: Path) -> None:
    data = [one[2] for one in images(folders)]
    parquet.write_table(
        pa.table({"jpg": pa.array([*data[:3], None], pa.binary()), "cls": ["a", "b", "a", None]}), tmp_path / "x.parquet"
    )
    dataset = open_dataset(Request(f"hf:{tmp_path}", resolution=32))
    assert [one.label for one in dataset] == ["a", "b", "a"]
    assert [(one.name, one.reason) for one in dataset.skipped] == [
        ("x.parquet/000003", "cannot be read: the row holds no bytes of an image")
    ]


def test_keys_that_repeat_get_their_tars_name(folders: Path, tmp_path: Path) -> None:
    data = images(folders)
    for shard in range(2):
        write_tar(
            tmp_path / f"s{shard}.tar", {f"0{i}.in.png": data[shard * 4 + i][2] for i in range(3)} | {"00.out.png": data[9][2]}
        )
    with pytest.raises(MsbenchError, match=r"s0/00 has several images; take one, as .*#out\.png"):
        open_dataset(Request(f"wds:{tmp_path}/*.tar"))
    dataset = open_dataset(Request(f"wds:{tmp_path}/*.tar#in.png", resolution=32))
    assert [entry.key for entry in dataset.entries] == [f"s{shard}__0{i}" for shard in range(2) for i in range(3)]
    assert len(list(dataset)) == 6


def test_patterns(tmp_path: Path) -> None:
    for name in ("a-00.tar", "a-01.tar", "b-00.tar", "c{1..2}.tar", "[x].tar"):
        (tmp_path / name).touch()
    for pattern, names in {
        "a-{00..01}.tar": ["a-00.tar", "a-01.tar"],
        "{b,a}-00.tar": ["b-00.tar", "a-00.tar"],
        "{a,a}-{00..01}.tar": ["a-00.tar", "a-01.tar"],
        "?-0[0].tar": ["a-00.tar", "b-00.tar"],
        "c{1..2}.tar": ["c{1..2}.tar"],
        "[x].tar": ["[x].tar"],
    }.items():
        assert [path.name for path in expand(f"{tmp_path}/{pattern}")] == names
    for pattern, words in {
        "a-{00..02}.tar": "no file .*a-02.tar",
        "a-{2..1}.tar": "names no file",
        "a-{0..999999999}.tar": "more than 100,000",
        "{0..9999}{0..9999}": "more than 100,000",
        "*.zip": "no file",
    }.items():
        with pytest.raises(MsbenchError, match=words):
            expand(f"{tmp_path}/{pattern}")


# --- the hub, which a function stands in for -------------------------------------------------------------------------------


@pytest.fixture
def hub(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`asked` is what snapshot_download was called with; `error` is what it raises."""
    seen: dict[str, Any] = {"asked": None, "error": None, "root": tmp_path / "snapshots" / "0a1b2c"}
    write_parquet(folders, seen["root"] / "data")
    (seen["root"] / "data" / "train-00000-of-00001.parquet").write_bytes(b"another split")

    def download(repository: str, **options: Any) -> str:
        seen["asked"] = {"repository": repository, **options}
        if seen["error"]:
            raise seen["error"]
        return str(seen["root"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return seen


def test_a_repository_gives_the_split_and_its_revision(hub: dict[str, Any], folders: Path) -> None:
    dataset = open_dataset(Request("hf:ILSVRC/imagenet-1k@0a1b2c#validation", resolution=32, split="train"))
    assert hub["asked"]["repository"] == "ILSVRC/imagenet-1k"
    assert (hub["asked"]["revision"], hub["asked"]["repo_type"]) == ("0a1b2c", "dataset")
    assert not hub["asked"]["local_files_only"]
    assert "revision 0a1b2c, split validation" in dataset.info.note
    assert len(list(dataset)) == 24
    assert facts(open_dataset(Request("hf:ILSVRC/imagenet-1k", resolution=32))) == facts(dataset)
    val = open_imagenet_val(Request("imagenet-val", Path("hf:ILSVRC/imagenet-1k@0a1b2c"), 32), SMALL)
    assert [entry.key for entry in val.entries] == KEYS


def test_what_the_hub_refuses_is_one_line(hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(name: str = "hf:ILSVRC/imagenet-1k", offline: bool = False) -> str:
        with pytest.raises(MsbenchError) as caught:
            open_dataset(Request(name, offline=offline))
        return str(caught.value)

    gated = GatedRepoError.__new__(GatedRepoError)
    Exception.__init__(gated, "403 Client Error")
    hub["error"] = gated
    assert "accept its terms at https://huggingface.co/datasets/ILSVRC/imagenet-1k and set HF_TOKEN" in refusal()
    hub["error"] = LocalEntryNotFoundError("nothing here")
    assert "is not in the hub's cache and --offline is set: give files" in refusal(offline=True)
    assert hub["asked"]["local_files_only"]
    assert "the hub does not answer" in refusal()
    hub["error"] = RuntimeError("connection reset\nin mid-download")
    assert "raised RuntimeError: connection reset in mid-download" in refusal()
    hub["error"] = None
    assert "split test has no parquet files" in refusal("hf:ILSVRC/imagenet-1k#test")
    (hub["root"] / "data" / "validation-00001-of-00002.parquet").unlink()
    assert "1 of the 2 files of validation" in refusal()
    (hub["root"] / "other").mkdir()
    (hub["root"] / "other" / "validation-0.parquet").touch()
    assert "lies in data, other: name one, as #data/validation" in refusal()


def test_training_images_come_from_tars_and_parquet(folders: Path, tmp_path: Path, tree: Any) -> None:
    from decoders.training.data import load_training_images

    root = tree(tmp_path / "t", [f"{'ab'[i % 2]}/{i:02d}.png" for i in range(20)], size=32)
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}
    write_tar(tmp_path / "t-0.tar", files)
    rows = [{"bytes": data, "path": name} for name, data in files.items()]
    parquet.write_table(pa.table({"image": pa.array(rows, IMAGE)}), tmp_path / "t.parquet")
    names = [f"folder:{root}", f"wds:{tmp_path}/t-{{0..0}}.tar", f"hf:{tmp_path}/t.parquet"]
    loaded = [load_training_images(Request(name, resolution=32, split="train")) for name in names]
    assert loaded[0].sha256 == loaded[1].sha256
    assert sorted(map(bytes, np.asarray(loaded[0].images))) == sorted(map(bytes, np.asarray(loaded[2].images)))
    # ImageNet's validation images stay out of training, whatever they are packed in.
    with pytest.raises(MsbenchError, match="0 usable images"):
        load_training_images(Request(f"wds:{write_shards(folders, tmp_path / 'v')}", resolution=32, split="train"))
