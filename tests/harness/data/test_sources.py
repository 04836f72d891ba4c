from __future__ import annotations

import gzip
import tarfile

import pytest

from harness.data.sources import FolderSource, is_image_name, list_folder, make_keys, open_tar
from harness.errors import MsbenchError


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "files"
    for name in ("a/one.png", "a/b/two.JPEG", "top.webp", "._top.webp", "__MACOSX/x.png", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 50)
    return root


def test_folder_and_tar_give_the_same_bytes(files, tmp_path, pack):
    tar = open_tar(pack(files, tmp_path / "x.tar"))
    names = list_folder(files)
    assert sorted(tar.members) == names
    assert all(tar.read(name) == FolderSource(files).read(name) == name.encode() * 50 for name in names)
    assert [name for name in names if is_image_name(name)] == ["a/b/two.JPEG", "a/one.png", "top.webp"]


def test_links_are_followed_and_loops_are_not(files, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.png").write_bytes(b"x")
    (files / "linked").symlink_to(tmp_path / "outside")
    (files / "a" / "loop").symlink_to(files)
    names = list_folder(files)
    assert "linked/x.png" in names
    assert not any("loop" in name for name in names)


def test_hard_links_in_a_tar(files, tmp_path):
    (files / "twin.png").hardlink_to(files / "top.webp")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(files / "top.webp", "top.webp")
        archive.add(files / "twin.png", "twin.png")
    tar = open_tar(tmp_path / "x.tar")
    assert tar.read("twin.png") == tar.read("top.webp") == b"top.webp" * 50


def test_bad_tars_are_named(files, tmp_path, pack):
    whole = pack(files, tmp_path / "x.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: whole.rindex(b"top.webp") - 100])
    (tmp_path / "packed.tar").write_bytes(gzip.compress(whole))
    (tmp_path / "text.tar").write_bytes(b"not a tar at all" * 100)
    for name, reason in (("cut", "cut short"), ("packed", "compressed"), ("text", "not a tar"), ("missing", "cannot read")):
        with pytest.raises(MsbenchError, match=reason):
            open_tar(tmp_path / f"{name}.tar")


def test_a_tar_that_shrinks_later_is_an_os_error(files, tmp_path, pack):
    path = pack(files, tmp_path / "x.tar")
    tar = open_tar(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OSError, match="ends inside"):
        tar.read("top.webp")


def test_keys_are_safe_and_unique():
    names = [
        "a/x.png",
        "a__x.png",
        "b.png",
        "b.jpg",
        "C.png",
        "c.png",
        "d é/f.png",
        ".h/i.png",
        "plain.png",
        "l" * 300 + ".png",
    ]
    keys = make_keys(names)
    assert keys["plain.png"] == "plain"
    assert len({key.casefold() for key in keys.values()}) == len(names)
    for key in keys.values():
        assert len(key) < 200
        assert key.isascii()
        assert not set(key) & set("/ \\:*?")
        assert not key.startswith(".")
    assert make_keys(reversed(names)) == keys
