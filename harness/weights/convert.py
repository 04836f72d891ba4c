"""From the files as published to plain float32 tensors, without executing what a pickle asks for.

Two published files are pickles: a TorchScript archive and a dictionary of NumPy arrays. Both are read by unpicklers that know
the handful of constructors such a file needs and refuse every other name. Plain state dicts are left to torch's own reader of
that kind (`weights_only`).
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import MsbenchError

if TYPE_CHECKING:
    from torch import Tensor

Arrays = dict[str, NDArray[np.float32]]
LpipsNet = Literal["alex", "vgg"]

CONV_LAYERS: dict[LpipsNet, tuple[int, ...]] = {
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
"""Positions of the convolutions in torchvision's `features`."""
_CHECKPOINT_ROOT: dict[LpipsNet, str] = {"alex": "AlexNet_0", "vgg": "VGG16_0"}
_HEADS = 5


def content_sha256(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Hex SHA-256 over name (UTF-8) and little-endian float32 bytes of every tensor, in the order of the sorted names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return digest.hexdigest()


# --- Inception -------------------------------------------------------------------------------------------------------------

_STEM = {
    "conv": "Conv2d_1a_3x3",
    "conv_1": "Conv2d_2a_3x3",
    "conv_2": "Conv2d_2b_3x3",
    "conv_3": "Conv2d_3b_1x1",
    "conv_4": "Conv2d_4a_3x3",
}
_LEAVES = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}


def _numbered(stem: str, branch: str, count: int) -> dict[str, str]:
    """`stem`, `stem_1`, … → `branch_1`, `branch_2`, …"""
    return {stem if i == 0 else f"{stem}_{i}": f"{branch}_{i + 1}" for i in range(count)}


def _mixed_branches() -> dict[str, tuple[str, dict[str, str]]]:
    """TF name of a mixed block → (its PyTorch name, branch names inside it)."""
    outer = {"conv": "branch1x1", "tower_2.conv": "branch_pool"}
    block_a = outer | _numbered("tower.conv", "branch5x5", 2) | _numbered("tower_1.conv", "branch3x3dbl", 3)
    block_b = {"conv": "branch3x3"} | _numbered("tower.conv", "branch3x3dbl", 3)
    block_c = outer | _numbered("tower.conv", "branch7x7", 3) | _numbered("tower_1.conv", "branch7x7dbl", 5)
    block_d = _numbered("tower.conv", "branch3x3", 2) | _numbered("tower_1.conv", "branch7x7x3", 4)
    block_e = {
        "conv": "branch1x1",
        "tower_conv": "branch3x3_1",
        "tower_mixed_conv": "branch3x3_2a",
        "tower_mixed_conv_1": "branch3x3_2b",
        "tower_1_conv": "branch3x3dbl_1",
        "tower_1_conv_1": "branch3x3dbl_2",
        "tower_1_mixed_conv": "branch3x3dbl_3a",
        "tower_1_mixed_conv_1": "branch3x3dbl_3b",
        "tower_2_conv": "branch_pool",
    }
    kinds = [block_a] * 3 + [block_b] + [block_c] * 4 + [block_d] + [block_e] * 2
    names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    return {
        "mixed" if i == 0 else f"mixed_{i}": (f"Mixed_{name}", kind)
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }


class _ScriptModule:
    """Stands for any module class of a TorchScript archive; the unpickler fills its `__dict__`."""


class _FloatStorage:
    """Stands for `torch.FloatStorage`, the only storage such an archive may hold."""


def _rebuild_array(
    storage: NDArray[np.float32], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> object:
    """The array that `torch._utils._rebuild_tensor_v2` would make (contiguous tensors only)."""
    expected: list[int] = []
    step = 1
    for extent in reversed(size):
        expected.insert(0, step)
        step *= extent
    if tuple(stride) != tuple(expected):
        raise MsbenchError(f"the TorchScript archive holds a tensor of stride {stride}; expected {tuple(expected)}")
    return storage[offset : offset + step].reshape(size)


class _ScriptUnpickler(pickle.Unpickler):
    """Reads `data.pkl` of a TorchScript archive: module attributes and float32 tensors, nothing else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):
            return _ScriptModule
        allowed: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_array,
            ("torch", "FloatStorage"): _FloatStorage,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch.jit._pickle", "build_intlist"): list,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> NDArray[np.float32]:
        kind, storage, key, _, count = pid
        if kind != "storage" or storage is not _FloatStorage:
            raise pickle.UnpicklingError(f"refused storage {storage!r}")
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype="<f4", count=count)


def _walk(module: _ScriptModule, prefix: str = "") -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor below a module, with its dotted name."""
    for name, value in vars(module).items():
        if isinstance(value, _ScriptModule):
            yield from _walk(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            yield f"{prefix}{name}", value


def inception_from_torchscript(data: bytes) -> Arrays:
    """The Inception tensors of a TorchScript archive, under torch-fidelity's names (no `fc`).

    Args:
        data: the archive's bytes (a zip).

    Raises:
        MsbenchError: the archive asks for something other than tensors, or a layer has an unknown name.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("/data.pkl")
        try:
            module = _ScriptUnpickler(archive, root).load()
        except pickle.UnpicklingError as error:
            raise MsbenchError(f"the TorchScript archive of the Inception weights is not plain tensors: {error}") from error
    mixed = _mixed_branches()
    arrays: Arrays = {}
    for name, array in _walk(module):
        path, leaf = name.removeprefix("net.layers.").rsplit(".", 1)
        outer, _, inner = path.partition(".")
        try:
            block = _STEM[outer] if not inner else f"{mixed[outer][0]}.{mixed[outer][1][inner]}"
            arrays[f"{block}.{_LEAVES[leaf]}"] = array
        except KeyError as error:
            raise MsbenchError(f"unknown Inception tensor {name!r} in the TorchScript archive") from error
    for name in [name for name in arrays if name.endswith(".bn.bias")]:
        # TF's batch norm was trained without a scale; PyTorch's wants one.
        arrays[f"{name.removesuffix('bias')}weight"] = np.ones_like(arrays[name])
    return arrays


def inception_from_state_dict(state: Mapping[str, Tensor]) -> Arrays:
    """The same tensors from torch-fidelity's published state dict: the classifier and the batch counters are dropped."""
    return {
        name: tensor.numpy()
        for name, tensor in state.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


# --- LPIPS -----------------------------------------------------------------------------------------------------------------


class _NumpyUnpickler(pickle.Unpickler):
    """Reads a pickle of dictionaries of NumPy arrays, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct: Callable[..., object] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
        allowed: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return allowed[module, name]


def _oihw(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """A Flax kernel (height, width, in, out) in PyTorch's order."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def lpips_from_checkpoint(data: bytes, net: LpipsNet) -> Arrays:
    """LPIPS tensors of a pickled Flax checkpoint: `features.N.{weight,bias}` (torchvision's names) and `lin{i}.weight`.

    Raises:
        MsbenchError: the pickle asks for something other than float32 arrays.
    """
    try:
        tree = _NumpyUnpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise MsbenchError(f"the LPIPS checkpoint for {net!r} is not plain arrays: {error}") from error
    tree = tree.get("params", tree)
    trunk = tree[_CHECKPOINT_ROOT[net]]
    arrays: Arrays = {}
    for i, layer in enumerate(CONV_LAYERS[net]):
        arrays[f"features.{layer}.weight"] = _oihw(trunk[f"Conv_{i}"]["kernel"])
        arrays[f"features.{layer}.bias"] = trunk[f"Conv_{i}"]["bias"]
    for i in range(_HEADS):
        arrays[f"lin{i}.weight"] = _oihw(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return arrays


def lpips_heads(net: LpipsNet) -> Arrays:
    """The v0.1 heads that the `lpips` package ships: `lin{i}.weight`, float32 [1, C, 1, 1]."""
    import torch

    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise MsbenchError("the package 'lpips' is not installed; install msbench with its dependencies")
    path = Path(spec.origin).parent / "weights" / "v0.1" / f"{net}.pth"
    # The published files hold CUDA tensors, hence map_location.
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {f"lin{i}.weight": state[f"lin{i}.model.1.weight"].numpy() for i in range(_HEADS)}


def lpips_from_state_dict(state: Mapping[str, Tensor], net: LpipsNet) -> Arrays:
    """The same tensors from torchvision's published state dict (its classifier is dropped) and the heads of `lpips`."""
    trunk = {name: tensor.numpy() for name, tensor in state.items() if name.startswith("features.")}
    return trunk | lpips_heads(net)


# --- DISTS -----------------------------------------------------------------------------------------------------------------


def dists_from_file(data: bytes) -> Arrays:
    """`alpha` and `beta` of the authors' `weights.pt`, float32 [1475] each.

    Raises:
        MsbenchError: the file asks for something other than tensors.
    """
    import torch

    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to load the file unsafely.
        raise MsbenchError("the DISTS weights are not plain tensors") from error
    return {name: state[name].flatten().numpy() for name in ("alpha", "beta")}
