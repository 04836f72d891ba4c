"""From the files as published to plain float32 tensors; every file has passed its pinned hash before it comes here.

State dicts are left to torch's reader of plain tensors (`weights_only`), the TorchScript archive to torch's own loader. The
LPIPS checkpoint is a bare pickle of NumPy arrays, which torch cannot read: an unpickler that knows the few constructors such a
file needs, and refuses every other name, does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import pickle
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Arrays = dict[str, NDArray[np.float32]]
LpipsNet = Literal["alex", "vgg"]

_CONV_LAYERS: dict[LpipsNet, tuple[int, ...]] = {
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

_STEM = "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3"
_BLOCKS = {
    "5b 5c 5d": "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
    "6a": "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
    "6b 6c 6d 6e": "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
    "7a": "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
    "7b 7c": "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
}
CONVOLUTIONS = _STEM.split()
for _blocks, _branches in _BLOCKS.items():
    CONVOLUTIONS += [f"Mixed_{block}.branch{branch}" for block in _blocks.split() for branch in _branches.split()]
"""torch-fidelity's names of the 94 convolutions, in the order of the TF graph and of the TorchScript archive"""


def inception_from_torchscript(data: bytes) -> Arrays:
    """The Inception tensors of a TorchScript archive, under torch-fidelity's names (no `fc`).

    The archive holds weight, beta, mean and variance of each convolution in turn; the content hash proves the order.

    Args:
        data: the archive's bytes (a zip).

    Raises:
        RuntimeError: it is no such archive.
        ValueError: it has more or fewer tensors.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch advises another format, which is the publisher's to choose
        network = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    tensors = list(network.state_dict().values())
    arrays: Arrays = {}
    for name, weight, beta, mean, variance in zip(CONVOLUTIONS, *(tensors[i::4] for i in range(4)), strict=True):
        # TF's batch norm was trained without a scale; PyTorch's wants one.
        normalisation = {"weight": torch.ones_like(beta), "bias": beta, "running_mean": mean, "running_var": variance}
        arrays[f"{name}.conv.weight"] = weight.numpy()
        arrays |= {f"{name}.bn.{leaf}": tensor.numpy() for leaf, tensor in normalisation.items()}
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
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") or name not in allowed:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return allowed[name]


def _oihw(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """A Flax kernel (height, width, in, out) in PyTorch's order."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def lpips_from_checkpoint(data: bytes, net: LpipsNet) -> Arrays:
    """LPIPS tensors of a pickled Flax checkpoint: `features.N.{weight,bias}` (torchvision's names) and `lin{i}.weight`.

    Raises:
        pickle.UnpicklingError: the pickle asks for something other than float32 arrays.
    """
    tree = _NumpyUnpickler(io.BytesIO(data)).load()
    tree = tree.get("params", tree)
    trunk = tree[_CHECKPOINT_ROOT[net]]
    arrays: Arrays = {}
    for i, layer in enumerate(_CONV_LAYERS[net]):
        arrays[f"features.{layer}.weight"] = _oihw(trunk[f"Conv_{i}"]["kernel"])
        arrays[f"features.{layer}.bias"] = trunk[f"Conv_{i}"]["bias"]
    for i in range(_HEADS):
        arrays[f"lin{i}.weight"] = _oihw(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return arrays


def lpips_heads(net: LpipsNet) -> Arrays:
    """The v0.1 heads that the `lpips` package ships: `lin{i}.weight`, float32 [1, C, 1, 1]."""
    import torch

    path = importlib.metadata.distribution("lpips").locate_file(f"lpips/weights/v0.1/{net}.pth")
    # The published files hold CUDA tensors, hence map_location.
    state = torch.load(str(path), map_location="cpu", weights_only=True)
    return {f"lin{i}.weight": state[f"lin{i}.model.1.weight"].numpy() for i in range(_HEADS)}


def lpips_from_state_dict(state: Mapping[str, Tensor], net: LpipsNet) -> Arrays:
    """The same tensors from torchvision's published state dict (its classifier is dropped) and the heads of `lpips`."""
    trunk = {name: tensor.numpy() for name, tensor in state.items() if name.startswith("features.")}
    return trunk | lpips_heads(net)


# --- DISTS -----------------------------------------------------------------------------------------------------------------


def dists_from_file(data: bytes) -> Arrays:
    """`alpha` and `beta` of the authors' `weights.pt`, float32 [1475] each.

    Raises:
        pickle.UnpicklingError: the file asks for something other than tensors.
    """
    import torch

    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: state[name].flatten().numpy() for name in ("alpha", "beta")}
