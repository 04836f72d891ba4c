"""Bad inputs, one row each: what happens is a counted warning or one line and exit 2, no other image is lost, no traceback.

Rows that stand beside their code: damaged tars (`harness/data/test_sources.py`), files that may not be read and outputs among
the data (`test_dataset.py`), EXIF and flipped bytes (`test_images.py`), the hub (`test_streams.py`), records and references
(`harness/compare`, `harness/verify`), manifests (`decoders/test_checkpoint.py`), saved states
(`decoders/test_trainer_guards.py`), weights (`harness/test_weights.py`), feature caches
(`harness/metrics/test_feature_cache.py`), a full or closed stdout (`harness/cli/test_boundary.py`), decoders and output folders
(`test_faults.py`).
"""

from __future__ import annotations

import errno
import http.client
import io
import json
import os
import pickle
import struct
import tarfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import Result
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

import harness.cli
from decoders.training.data import load_training_images, map_array
from decoders.training.state import load_state
from harness.cli import app
from harness.data.images import image_size
from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.environment import Start
from harness.errors import MsbenchError
from tests.harness.run.conftest import LightRun, images, light  # noqa: F401 - fixtures

USED = ""
Build = Callable[[Path], object]


def photo(side: int = 48, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """An 8-bit grey PNG that says it is this large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def garbled(data: bytes, at: int) -> bytes:
    return data[:at] + b"\xff\x00\xaa" * 30 + data[at + 90 :]


JPEG, PNG = saved(photo(), "JPEG"), saved(photo())
GREY16 = Image.fromarray(np.full((48, 48), 40_000, np.uint16))
FLOAT = Image.fromarray(np.full((48, 48), 0.5, np.float32))
WIDE = Image.fromarray(np.full((48, 48), 1 << 20, np.int32))

CONTENTS: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "empty file"),
    "one byte": (b"\xff", "not an image"),
    "a web page": (b"<html>404 not found</html>", "not an image"),
    "text of nulls": (bytes(4096), "not an image"),
    "JPEG cut in half": (JPEG[: len(JPEG) // 2], "damaged"),
    "JPEG header alone": (JPEG[:20], "not an image|damaged"),
    "PNG cut in half": (PNG[: len(PNG) // 2], "damaged"),
    "PNG with a garbled body": (garbled(PNG, 60), "damaged"),
    "PNG with a garbled header": (garbled(PNG, 10), "not an image|damaged"),
    "WebP cut in half": (saved(photo(), "WEBP")[:200], "damaged|not an image"),
    "GIF cut in half": (saved(photo(), "GIF")[:300], "damaged|not an image"),
    "TIFF cut in half": (saved(photo(), "TIFF")[:100], "damaged|not an image"),
    "bomb of 10 gigapixels": (png(100_000, 100_000), "too large"),
    "rows that are not there": (png(64, 64), "damaged"),
    "no pixel at all": (png(0, 48), "damaged|not an image"),
    "too small": (saved(photo(31)), "too small: 31x31, the short side must be 32 or more"),
    "one row of pixels": (saved(Image.new("RGB", (5000, 1))), "too small"),
    "floating-point pixels": (saved(FLOAT, "TIFF"), "white"),
    "32-bit pixels": (saved(WIDE, "TIFF"), "white"),
    "palette (P)": (saved(photo().quantize(16)), USED),
    "grey with alpha (LA)": (saved(photo(mode="LA")), USED),
    "CMYK": (saved(photo(mode="CMYK"), "JPEG"), USED),
    "16-bit grey": (saved(GREY16), USED),
    "1-bit": (saved(photo(mode="1")), USED),
    "animation": (saved(photo(), "GIF", save_all=True, append_images=[photo(50).resize((48, 48))]), USED),
    "colour with alpha": (saved(photo(mode="RGBA")), USED),
    "JPEG called PNG": (JPEG, USED),
    "bytes behind the end": (JPEG + b"<?php evil" * 100, USED),
}
NAMES: dict[str, bytes] = {
    "Japanese": "日本語.png".encode(),
    "right to left": "שלום\u202egnp.png".encode(),
    "emoji and combining": "e\u0301🙂.png".encode(),
    "a newline": b"a\nb.png",
    "an escape sequence": b"\x1b[31mred\x07.png",
    "markup": b"[red]x[bold].png",
    "a formula": b"=cmd|' -C calc'!A1.png",
    "LaTeX and Markdown": b"$\\input{x}$|`*<script>.png",
    "not UTF-8": b"caf\xe9.png",
    "as long as can be": b"n" * 251 + b".png",
    "a leading dash": b"-rf.png",
    "blanks and quotes": b" '\" .png",
    "a name of Windows": b"CON.png",
}
SPECIAL: dict[str, tuple[Build, str]] = {
    "link to nothing": (lambda p: p.symlink_to("nowhere"), "No such file"),
    "link to itself": (lambda p: p.symlink_to(p.name), "symbolic links"),
    "FIFO": (os.mkfifo, "FIFO"),
    "hole of 100 GiB": (lambda p: (p.touch(), os.truncate(p, 100 << 30)), "107,374,182,400 bytes"),
    "link to a device": (lambda p: p.symlink_to("/dev/zero"), "device"),
    "link to a file of the system": (lambda p: p.symlink_to("/etc/passwd"), "not an image"),
    "hard link": (lambda p: (p.parent / "n00.png").write_bytes(PNG) and p.hardlink_to(p.parent / "n00.png"), USED),
}


def counted(folder: Path, reason: str, kept: int) -> None:
    """The odd file is used, or is the one that is named with a reason; the others are used."""
    dataset = open_dataset(Request(f"folder:{folder}", resolution=32))
    found = list(dataset)
    assert len(found) == kept + (reason == USED)
    assert len(dataset.skipped) == (reason != USED)
    for one in dataset.skipped:
        assert any(words in one.reason for words in reason.split("|")), one.reason
        assert "\n" not in one.reason
    for key in (example.key for example in found):
        assert key.isascii()
        assert key.isprintable()
        assert "/" not in key


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_any_content(images: Path, name: str) -> None:  # noqa: F811
    data, reason = CONTENTS[name]
    (images / "odd.png").write_bytes(data)
    counted(images, reason, 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name(images: Path, name: str) -> None:  # noqa: F811
    Path(os.fsdecode(os.fsencode(images) + b"/" + NAMES[name])).write_bytes(PNG)
    counted(images, USED, 10)


@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_plain_file(images: Path, name: str) -> None:  # noqa: F811
    build, reason = SPECIAL[name]
    build(images / "odd.png")
    counted(images, reason, 10)


@pytest.mark.parametrize("kind", ["folder", "tar", "wds", "parquet", "npz"])
def test_an_image_of_too_many_bytes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    big = saved(photo(200))
    for module in ("sources", "parquet"):
        monkeypatch.setattr(f"harness.data.{module}.MAX_BYTES", len(big) - 1)
    members = [("0.png", PNG), ("1.png", big), ("2.png", PNG)]
    if kind == "folder":
        for name, data in members:
            written(tmp_path / name, data)
    builds: dict[str, Callable[[], str]] = {
        "folder": lambda: f"folder:{tmp_path}",
        "tar": lambda: f"folder:{tar(tmp_path / 'x.tar', *members)}",
        "wds": lambda: f"wds:{tar(tmp_path / 'x.tar', *members)}",
        "parquet": lambda: f"hf:{rows(tmp_path / 'x.parquet', [data for _, data in members])}",
        "npz": lambda: f"folder:{array(tmp_path / 'x.npz', np.zeros((3, 200, 201, 3), np.uint8))}",
    }
    dataset = open_dataset(Request(builds[kind](), resolution=32))
    every = kind == "npz"
    assert len(list(dataset)) == (0 if every else 2)
    size = 200 * 201 * 3 if every else len(big)
    assert {one.reason for one in dataset.skipped} == {
        f"cannot be read: {size:,} bytes, and of an image at most {len(big) - 1:,} are read"
    }


@pytest.mark.parametrize("path", [7, b"a/b.png", b"\xff.png", "a/b.png", None])
@pytest.mark.parametrize("name", ["image", "my.image", "my.own.image"])
def test_columns_of_any_name_with_paths_of_any_kind(tmp_path: Path, name: str, path: Any) -> None:
    column = pa.array([{"bytes": PNG, "path": path}])
    dataset = open_dataset(Request(f"hf:{rows(tmp_path / 'x.parquet', column, name)}", resolution=32))
    assert [example.key for example in dataset] == ["b" if path == "a/b.png" else "000000"]


def test_libraries_do_not_warn_on_stderr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def command(prog_name: str) -> None:
        image_size(png(10_000, 10_000))  # more pixels than Pillow likes
        with pytest.raises(MsbenchError, match="not a readable run state"):
            load_state(tmp_path / "state.pt", "", 1)
        warnings.warn("of a decoder", stacklevel=1)

    (tmp_path / "state.pt").write_bytes(pickle.dumps({}))
    for name in ("open_streams", "keep_freed_memory"):
        monkeypatch.setattr(harness.cli, name, lambda: None)
    monkeypatch.setattr(harness.cli, "app", command)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        harness.cli.main()
    assert [str(one.message) for one in found] == ["of a decoder"]


# --- the command line ------------------------------------------------------------------------------------------------------


def msbench(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


@pytest.mark.usefixtures("light")
@pytest.mark.filterwarnings("ignore")
def test_a_run_over_all_of_them_counts_each_once(images: Path, tmp_path: Path) -> None:  # noqa: F811
    used, skipped = 10, 0
    for number, (data, reason) in enumerate(CONTENTS.values()):
        (images / f"odd{number}.png").write_bytes(data)
        used, skipped = used + (reason == USED), skipped + (reason != USED)
    for name in NAMES.values():
        Path(os.fsdecode(os.fsencode(images) + b"/" + name)).write_bytes(PNG)
        used += 1
    for name in (b"broken\nx.jpg", b"broken\xff.jpg", b"broken\x1b[31m.jpg"):
        Path(os.fsdecode(os.fsencode(images) + b"/" + name)).write_bytes(b"x")
        skipped += 1
    place = ["--output-dir", tmp_path / "run", "--resolution", 32, "--no-cost"]
    done = msbench("run", "--decoder", "identity", "--dataset", f"folder:{images}", *place)
    assert done.exit_code == 0, done.stderr
    assert f"{skipped} files skipped" in done.stdout
    assert "\x1b[31m" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["results"][0]["n"] == used
    assert len(record["dataset"]["skipped"]) == skipped


def tar(path: Path, *members: tuple[str, bytes | None]) -> str:
    """A tar of files; a name without content is a device."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if data is None:
                member.type = tarfile.CHRTYPE
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data or b""))
    return str(path)


def rows(path: Path, column: Any, name: str = "image") -> str:
    parquet.write_table(pa.table({name: column}), path)
    return str(path)


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def array(path: Path, samples: Any, cut: int | None = None) -> str:
    np.savez(path, samples, allow_pickle=True)
    path.write_bytes(path.read_bytes()[:cut])
    return str(path)


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def npy(path: Path, says: str) -> str:
    """Samples whose header says this."""
    text = says.encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4096))
    return str(path)


def twice(path: Path) -> str:
    """Two columns of one name."""
    parquet.write_table(pa.table([[PNG], [PNG]], names=["image", "image"]), path)
    return str(path)


def not_utf8(path: Path, name: str) -> str:
    """A column of text that is none, beside images."""
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    columns = {"image": pa.StructArray.from_arrays([pa.array([PNG]), text], ["bytes", "path"])}
    parquet.write_table(pa.table(columns if name == "path" else {"image": [PNG], name: text}), path)
    return str(path)


BRACKET = "{'descr': ((("
SHAPED = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s, 32, 32, 3)}"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
DATASETS: dict[str, tuple[Callable[[Path], str], str]] = {
    "no such folder": (lambda p: f"folder:{p / 'no'}", "does not exist"),
    "a folder without images": (lambda p: f"folder:{p}", "holds no image files"),
    "a FIFO for a folder": (lambda p: (os.mkfifo(p / "f"), f"folder:{p / 'f'}")[1], "neither a folder nor a file"),
    "a device for a folder": (lambda p: "folder:/dev/zero", "neither a folder nor a file"),
    "a tar of devices": (lambda p: f"folder:{tar(p / 'x.tar', ('a.png', None))}", "no usable image"),
    "a tar that is text": (lambda p: f"folder:{written(p / 'x.tar', b'text' * 999)}", "is not a tar"),
    "a tar of one name twice": (lambda p: f"folder:{tar(p / 'x.tar', ('a.png', PNG), ('a.png', PNG))}", "stored twice"),
    "samples that are pickles": (lambda p: f"folder:{array(p / 'x.npz', np.array([Evil(p / 'ran')]))}", "arr_0 is object"),
    "samples cut": (
        lambda p: f"folder:{array(p / 'x.npz', np.zeros((9, 32, 32, 3), np.uint8), 999)}",
        "reading it as .npz (write it again) raised BadZipFile",
    ),
    "samples of an open bracket": (lambda p: f"folder:{npy(p / 'x.npz', BRACKET)}", "raised TokenError"),
    "samples of a negative number": (lambda p: f"folder:{npy(p / 'x.npz', SHAPED % '-1')}", "raised OverflowError"),
    "samples beyond count": (lambda p: f"folder:{npy(p / 'x.npz', SHAPED % (2**63 - 1))}", "reading it as .npz"),
    "samples of a truth": (lambda p: f"folder:{npy(p / 'x.npz', SHAPED % True)}", "raised TypeError"),
    "a home of nobody": (lambda p: "folder:~nosuchuser/x", "~nosuchuser/x does not exist"),
    "shards of nobody": (lambda p: "wds:~nosuchuser/x.tar", "no file ~nosuchuser/x.tar"),
    "parquet of nobody": (lambda p: "hf:~nosuchuser/x.parquet", "no file ~nosuchuser/x.parquet"),
    "two columns of images": (lambda p: f"hf:{twice(p / 'x.parquet')}", 'image" exists 2 times'),
    "labels that are no text": (lambda p: f"hf:{not_utf8(p / 'x.parquet', 'label')}", "raised UnicodeDecodeError"),
    "paths that are no text": (lambda p: f"hf:{not_utf8(p / 'x.parquet', 'path')}", "raised UnicodeDecodeError"),
    "a split of files": (lambda p: f"hf:{p}/*.parquet#validation", "# is for repositories of the hub alone"),
    "a split of one file": (lambda p: "hf:data/x.parquet#validation", "# is for repositories of the hub alone"),
    "no tar of the pattern": (lambda p: f"wds:{p}/*.tar", "no file"),
    "a shard that is missing": (lambda p: f"wds:{tar(p / 'x-0.tar', ('a.png', PNG))[:-5]}{{0..1}}.tar", "no file"),
    "a shard cut": (
        lambda p: f"wds:{written(p / 'x.tar', Path(tar(p / 'y', ('a.png', PNG))).read_bytes()[:900])}",
        "incomplete",
    ),
    "two images a sample": (lambda p: f"wds:{tar(p / 'x.tar', ('a.png', PNG), ('a.jpg', JPEG))}", "several images"),
    "shards without images": (lambda p: f"wds:{tar(p / 'x.tar', ('a.cls', b'1'))}", "no image found"),
    "a class that is a device": (lambda p: f"wds:{tar(p / 'x.tar', ('a.png', PNG), ('a.cls', None))}", "reading the class"),
    "a pattern of a billion": (lambda p: f"wds:{p}/{{0..999999999}}.tar", "more than 100,000"),
    "text for parquet": (
        lambda p: f"hf:{written(p / 'x.parquet', b'text' * 99)}",
        "reading it (copy or download it again) raised",
    ),
    "parquet cut": (
        lambda p: f"hf:{written(p / 'x.parquet', b'PAR1' + bytes(99))}",
        "reading it (copy or download it again) raised",
    ),
    "parquet without images": (lambda p: f"hf:{rows(p / 'x.parquet', ['a'])}", "no column of images; its columns are image"),
    "rows that name files": (
        lambda p: f"hf:{rows(p / 'x.parquet', pa.array([{'bytes': None, 'path': '/etc/passwd'}], IMAGE))}",
        "no usable image (x.parquet/0/passwd: cannot be read: the row holds no bytes",
    ),
    "a file's name for a repository": (lambda p: f"hf:{p}/x.parquet", "no file"),
    "nothing behind the colon": (lambda p: "hf:", "give the images once"),
    "a kind that nobody knows": (lambda p: "s3:bucket/x", "unknown dataset 's3:bucket/x'"),
}


def refused(tmp_path: Path, words: str, *command: object) -> None:
    place = ["--output-dir", tmp_path / "out", "--resolution", 32, "--no-cost", "--offline"]
    done = msbench("run", *command, *place)
    text = " ".join(done.stderr.split())
    assert done.exit_code == 2, text
    assert words in text
    assert "Traceback" not in text
    assert done.stdout == ""
    assert not (tmp_path / "ran").exists()
    assert len([line for line in done.stderr.splitlines() if line.startswith("msbench: ")]) == 1


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("name", DATASETS)
def test_a_set_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    place, (build, words) = tmp_path / "place", DATASETS[name]
    place.mkdir()
    refused(tmp_path, words, "--decoder", "identity", "--dataset", build(place))
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("decoder", "words"),
    [
        ("vae@checkpoint=~nosuchuser/x.safetensors", "no checkpoint at ~nosuchuser/x.safetensors"),
        ("direct@encoder=~nosuchuser/x.safetensors", "~nosuchuser/x.safetensors"),
        ("~nosuchuser/x.py", "there is no file ~nosuchuser/x.py"),
        ("images:~nosuchuser/x", "~nosuchuser/x does not exist"),
    ],
)
def test_a_decoder_in_the_home_of_nobody_is_refused(images: Path, tmp_path: Path, decoder: str, words: str) -> None:  # noqa: F811
    refused(tmp_path, words, "--decoder", decoder, "--dataset", f"folder:{images}")


def test_paths_in_archives_are_names_and_nothing_more(tmp_path: Path) -> None:
    members = [("../../up.png", PNG), ("/abs.png", PNG), ("a/../b.png", PNG), ("device.png", None)]
    for dataset in (f"folder:{tar(tmp_path / 'x.tar', *members)}", f"wds:{tmp_path / 'x.tar'}"):
        opened = open_dataset(Request(dataset, resolution=32))
        assert [example.key for example in opened] == ["__abs"]  # what has a `..` is no image
        assert opened.info.note.startswith("2 ")
        assert [one.reason for one in opened.skipped] == ["cannot be read: a link, FIFO or device, not a file"]
        assert not any("/" in entry.key or entry.key.startswith(".") for entry in opened.entries)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar"]


def tensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(offsets: tuple[int, int], shape: tuple[int, ...] = (2,), dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


CHECKPOINTS: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a header of 8 EiB": tensors(b"{}", length=2**63),
    "a header longer than the file": tensors(b"{}", length=1000),
    "a header that is no JSON": tensors(b"not json"),
    "a header cut": tensors(b'{"a": {"dtype": "F16"'),
    "a header that is a list": tensors(b"[]"),
    "a header nested deep": tensors(b"[" * 100_000),
    "a header that is not UTF-8": tensors(b'{"\xff": 1}'),
    "offsets that overlap": tensors(header(a=tensor((0, 4)), b=tensor((2, 6))), bytes(6)),
    "offsets beyond the end": tensors(header(a=tensor((0, 400), (200,))), bytes(4)),
    "offsets backwards": tensors(header(a=tensor((4, 0))), bytes(4)),
    "a gap between tensors": tensors(header(a=tensor((0, 4)), b=tensor((8, 12))), bytes(12)),
    "a shape of another size": tensors(header(a=tensor((0, 4), (3,))), bytes(4)),
    "a shape that overflows": tensors(header(a=tensor((0, 4), (2**62, 2**62))), bytes(4)),
    "a negative shape": tensors(header(a=tensor((0, 4), (-2,))), bytes(4)),
    "a type that nobody knows": tensors(header(a=tensor((0, 4), dtype="Q7")), bytes(4)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_hostile_safetensors_are_refused(images: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    file = written(tmp_path / "x.safetensors", CHECKPOINTS[name])
    refused(
        tmp_path,
        "is not a readable safetensors file",
        "--decoder",
        "vae",
        "--checkpoint",
        file,
        "--dataset",
        f"folder:{images}",
    )


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_pickles_are_refused_and_run_nothing(images: Path, tmp_path: Path, write: Callable[..., Any]) -> None:  # noqa: F811
    write({"weight": Evil(tmp_path / "ran")}, tmp_path / "x.pt")
    write({"weight": Evil(tmp_path / "ran")}, tmp_path / "taef2_encoder.pth")
    for decoder, file, words in (
        ("vae", "x.pt", "is not a readable safetensors file"),
        ("taef2", "", "taef2_encoder.pth does not hold the weights expected"),
    ):
        checkpoint = tmp_path / file
        refused(tmp_path, words, "--decoder", decoder, "--checkpoint", checkpoint, "--dataset", f"folder:{images}")


# --- caches, disks, networks and clocks ------------------------------------------------------------------------------------


class Full(io.BytesIO):
    """A disk without room."""

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", ["a file", "below a file", "full"])
def test_a_cache_that_takes_nothing_loses_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """An image that could not be kept is not counted as unreadable: the run ends."""
    monkeypatch.setenv("MSBENCH_FEATURES", "off")
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache" / ("in" if case == "below a file" else "")))
    if case == "full":
        monkeypatch.setattr("harness.data.parquet.tempfile.TemporaryFile", lambda dir: Full())
    else:
        (tmp_path / "cache").write_text("a file")
    column = pa.array([{"bytes": PNG, "path": f"{i}.png"} for i in range(4)], IMAGE)
    words = "cannot keep the images of x.parquet"
    refused(tmp_path, words, "--decoder", "identity", "--dataset", f"hf:{rows(tmp_path / 'x.parquet', column)}")


def test_a_damaged_row_group_costs_its_rows_alone(tmp_path: Path) -> None:
    column = pa.array([{"bytes": saved(photo(40 + i)), "path": f"{i}.png"} for i in range(6)], IMAGE)
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"image": column}), path, row_group_size=2, compression="gzip", use_dictionary=False)
    with parquet.ParquetFile(path) as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    data = path.read_bytes()
    path.write_bytes(data[: start + 40] + bytes(200) + data[start + 240 :])
    dataset = open_dataset(Request(f"hf:{path}", resolution=32))
    assert [example.key for example in dataset] == ["0", "1", "4", "5"]
    assert [one.name for one in dataset.skipped] == ["x.parquet/2/2.png", "x.parquet/3/3.png"]
    assert all(one.reason.startswith("cannot be read: ") and "\n" not in one.reason for one in dataset.skipped)


def test_a_damaged_pack_is_made_anew_and_damaged_latents_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for i in range(20):
        photo(40 + i).resize((32, 32)).save(tmp_path / "set" / f"{i:02d}.png")
    request = Request(f"folder:{tmp_path / 'set'}", resolution=32, split="train")
    whole = load_training_images(request, limit=0)
    sha256 = whole.sha256
    (pack,) = (tmp_path / "cache" / "pixels").glob("*.npy")
    card = pack.with_suffix(".json")
    for path, content in ((pack, pack.read_bytes()[:999]), (card, b"{"), (card, b"[]")):
        path.unlink()  # the file that `whole` maps stays as it is
        path.write_bytes(content)
        again = load_training_images(request, limit=0)
        assert bool(torch.equal(whole.images, again.images))
        assert again.sha256 == sha256
    (tmp_path / "l.npy").write_bytes(pack.read_bytes()[:999])
    with pytest.raises(MsbenchError, match=r"the cache file .*l\.npy: reading it \(where it is damaged, remove it\) raised"):
        map_array(tmp_path / "l.npy")


def test_a_network_that_goes_in_mid_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torchvision.datasets.Imagenette", gone)
    with pytest.raises(MsbenchError, match="imagenette: no download to"):
        open_dataset(Request("imagenette"))
    assert not list((tmp_path / "cache" / "imagenette").iterdir())


def test_a_clock_that_is_set_back_makes_no_negative_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(facts={})
    monkeypatch.setattr(time, "time", lambda: start.unix - 86_400)
    assert 0 <= start.seconds() < 60
