from __future__ import annotations

import gzip
import io
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
    names, _ = list_folder(files)
    assert sorted(tar.members) == names
    assert all(tar.read(name) == FolderSource(files).read(name) == name.encode() * 50 for name in names)
    assert [name for name in names if is_image_name(name)] == ["a/b/two.JPEG", "a/one.png", "top.webp"]


def test_links_are_followed_and_loops_are_not(files, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.png").write_bytes(b"x")
    (files / "linked").symlink_to(tmp_path / "outside")
    (files / "a" / "loop").symlink_to(files)
    names, left_out = list_folder(files)
    assert "linked/x.png" in names
    assert not any("loop" in name for name in names)
    assert left_out == ["a/loop/ (a loop of links)"]


def test_hard_links_in_a_tar(files, tmp_path):
    (files / "twin.png").hardlink_to(files / "top.webp")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(files / "top.webp", "top.webp")
        archive.add(files / "twin.png", "twin.png")
    tar = open_tar(tmp_path / "x.tar")
    assert tar.read("twin.png") == tar.read("top.webp") == b"top.webp" * 50


def test_links_and_devices_in_a_tar_give_no_data(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not in the tar")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for name in ("../../up.jpg", "/etc/abs.jpg", "one.jpg"):
            add(archive, name, b"data of " + name.encode())
        for name, kind, target in (
            ("hard.jpg", tarfile.LNKTYPE, "one.jpg"),
            ("nothing.jpg", tarfile.LNKTYPE, "nowhere.jpg"),
            ("soft.jpg", tarfile.SYMTYPE, str(secret)),
            ("fifo.jpg", tarfile.FIFOTYPE, ""),
            ("zero.jpg", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    tar = open_tar(tmp_path / "evil.tar")
    assert tar.read("../../up.jpg") == b"data of ../../up.jpg"
    assert tar.read("/etc/abs.jpg") == b"data of /etc/abs.jpg"
    assert tar.read("hard.jpg") == tar.read("one.jpg")
    for name, reason in (("nothing", "hard link to nothing"), ("soft", "a link"), ("fifo", "FIFO"), ("zero", "device")):
        with pytest.raises(OSError, match=reason):
            tar.read(f"{name}.jpg")
    assert all(not set(key) & set("/\\") and not key.startswith(".") for key in make_keys(tar.members).values())


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_bad_tars_are_named(files, tmp_path, pack):
    whole = pack(files, tmp_path / "x.tar").read_bytes()
    (tmp_path / "packed.tar").write_bytes(gzip.compress(whole))
    (tmp_path / "text.tar").write_bytes(b"not a tar at all" * 100)
    (tmp_path / "empty.tar").write_bytes(b"")
    for name, reason in (("packed", "compressed"), ("text", "not a tar"), ("empty", "not a tar"), ("missing", "cannot read")):
        with pytest.raises(MsbenchError, match=reason):
            open_tar(tmp_path / f"{name}.tar")


def set_size(header, size):
    """A tar header with another size field (12 bytes) and the checksum to match."""
    header = header[:124] + size + header[136:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("bad header", lambda tar: tar[:1024] + b"\xff" * 512 + tar[1536:]),
        ("header of zeros", lambda tar: tar[:1024] + b"\0" * 512 + tar[1536:]),
        ("negative size", lambda tar: tar[:1024] + set_size(tar[1024:1536], b"\xff" * 12) + tar[1536:]),
        ("huge size", lambda tar: tar[:1024] + set_size(tar[1024:1536], b"77777777777\0") + tar[1536:]),
        ("cut in data", lambda tar: tar[:1600]),
        ("cut in header", lambda tar: tar[:1100]),
        ("cut between files", lambda tar: tar[:1024]),
        ("cut in the padding", lambda tar: tar[:900]),
    ],
)
def test_a_damaged_tar_says_after_which_file(tmp_path, kind, change):
    """Four files of 300 bytes: each is one block of header and one of data."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for i in range(4):
            add(archive, f"m{i}.jpg", bytes([65 + i]) * 300)
    assert len(open_tar(tmp_path / "x.tar").members) == 4
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(change((tmp_path / "x.tar").read_bytes()))
    with pytest.raises(MsbenchError, match=r"damaged after m0\.jpg \([^\n]*again$"):
        open_tar(damaged)


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
