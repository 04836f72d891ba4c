"""FLOPs and bytes of a decode, counted operation by operation while it runs, not taken from a formula of the network's.

Counted, each multiply-add as two FLOPs: matrix products (so linear layers and einsum too), products with vectors, convolutions,
grouped, dilated and transposed ones included, with padding's zeros too; attention, fused or not; recurrent layers; quantised
linear layers and convolutions. The formulas are torch's (`torch.utils.flop_counter`) and those of `_flops` below.

Estimated apart (`Work.elementwise_gflops`), never added to `gflops`: one FLOP an element of everything else, such as biases,
activations, normalisation, softmax, pooling, resampling, reductions. That is low for an operation that does more to an element,
as a normalisation or an exponential does.

Operations that may do matrix-like work and have no formula, custom kernels above all, are named (`Work.uncounted`). Integer
arithmetic (the noise generator's) and whatever runs inside a compiled function is not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from harness.decoder import Decoder, NoiseSource

# Operations that allocate or rename and touch no element; the last three are views that do not say so.
_TOUCH_NOTHING = """
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided
    _unsafe_view _reshape_alias lift_fresh
"""
# Operations that move, make or choose elements without arithmetic: bytes, no FLOPs.
_MOVE = """
    _to_copy copy copy_ clone cat stack repeat repeat_interleave flip roll where view_copy permute_copy expand_copy slice_copy
    fill fill_ zero_ zeros zeros_like ones ones_like full full_like new_zeros new_ones new_full arange scalar_tensor
    masked_fill masked_fill_ constant_pad_nd reflection_pad2d replication_pad2d tril triu _local_scalar_dense
    index index_select index_put index_put_ gather scatter scatter_ embedding pixel_shuffle pixel_unshuffle channel_shuffle
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d
"""
_TOUCHES_NOTHING, _MOVES = frozenset(_TOUCH_NOTHING.split()), frozenset(_MOVE.split())
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
# Names of operations that may multiply matrices; those that only sound like it.
_MATRIX_LIKE = re.compile(
    r"attention|multi_head|transformer|(^|_|add|b)mm($|_)|matmul|einsum|linear|conv(olution|_|\d)|lstm|gru|rnn|(^|_)fft|cdist"
    r"|(^|_)(mv|dot|vdot|addmv|addr|ger|outer)$|linalg|sparse"
)
_ELEMENTWISE = re.compile(r"upsample|vector_norm|_fused_(lstm|gru)_cell|prepack|unpack")
_BIAS_ARGUMENT = {"convolution": 2, "_convolution": 2, "addmm": 0, "baddbmm": 0}


@dataclass(frozen=True, slots=True)
class Work:
    """What one image's decode does, over all steps and scales."""

    gflops: float | None
    """GFLOPs of matrix products, convolutions and attention, two a multiply-add; None where none ran (no network)"""
    elementwise_gflops: float
    """estimate of what `gflops` leaves out: one FLOP per element of each other floating-point operation and bias"""
    activation_gb: float
    """GB (1e9 bytes) of tensors made by the decode, latents included, read and written if no operation were fused"""
    weight_gb: float
    """GB of tensors held from before, weights above all, read in one call, whatever its batch"""
    uncounted: tuple[str, ...] = ()
    """operations that may do matrix-like work and are in no figure, by name: `gflops` is too low where there are any"""

    def gigabytes(self, batch_size: int = 1) -> float:
        """GB moved per image at a batch size: weights are read once a call, the rest once an image."""
        return self.activation_gb + self.weight_gb / batch_size


def count_flops(decoder: Decoder, latents_one: Tensor, noise: NoiseSource) -> float | None:
    """`Work.gflops` of `count_work`."""
    return count_work(decoder, latents_one, noise).gflops


def count_work(decoder: Decoder, latents_one: Tensor, noise: NoiseSource) -> Work:
    """FLOPs of both kinds and bytes of one `decode`, over all steps and scales, in one pass.

    Bytes are those of every tensor each operation takes and gives, views left out, an expanded tensor counted at the size of
    its memory. An upper bound of the traffic: fused kernels never write what lies between, and caches keep small tensors.

    Args:
        decoder: counted in eager mode, in whatever dtype and on whatever device it was built.
        latents_one: latents of one image, [1, ...] (a larger batch is divided out).
        noise: a source for as many samples.
    """
    tally = _Tally([latents_one])
    with torch.no_grad(), _plain_kernels(), tally:
        decoder.decode(latents_one, noise)
    images = latents_one.shape[0]
    return Work(
        gflops=tally.flops / images / 1e9 if tally.flops else None,
        elementwise_gflops=tally.elementwise / images / 1e9,
        activation_gb=tally.made_bytes / images / 1e9,
        weight_gb=tally.held_bytes / 1e9,
        uncounted=tuple(sorted(tally.uncounted)),
    )


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Attention and transformer layers run as the products they are made of, unless a decoder chooses a kernel itself."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums FLOPs and bytes of every operation that runs inside.

    Args:
        made: tensors counted as made by the decode though they were there before (the latents).
    """

    def __init__(self, made: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.elementwise = 0
        self.uncounted: set[str] = set()
        self.made_bytes = 0
        self.held_bytes = 0
        # Memory held from before is never handed out again while it is held, so an address tells the two apart.
        self._made = {_address(tensor) for tensor in made}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            # Inference mode hands composite operations over whole: take them apart as PyTorch itself does.
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        result = func(*args, **kwargs)
        space, _, name = func._schema.name.rpartition("::")
        taken, given = _tensors([*args, *kwargs.values()]), _tensors([result])
        if name in _TOUCHES_NOTHING:
            self._made.update(_address(tensor) for tensor in given)
        elif not _is_view(func):
            for tensor in taken:
                if _address(tensor) in self._made:
                    self.made_bytes += _bytes(tensor)
                else:
                    self.held_bytes += _bytes(tensor)
            for tensor in given:
                self.made_bytes += _bytes(tensor)
                self._made.add(_address(tensor))
            flops = _flops(func, name, args, kwargs, result)
            self.flops += flops or 0
            if flops is not None:
                place = _BIAS_ARGUMENT.get(name)
                self.elementwise += given[0].numel() if place is not None and isinstance(args[place], Tensor) else 0
            elif space not in ("aten", "prim", "prims", "quantized") or (
                _MATRIX_LIKE.search(name) and not _ELEMENTWISE.search(name)
            ):
                self.uncounted.add(f"{space}::{name}")
            elif name not in _MOVES and any(_is_real(tensor) for tensor in given):
                # The larger side where it reduces.
                self.elementwise += max(tensor.numel() for tensor in (*taken, *given) if _is_real(tensor))
        return result


def _flops(func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int | None:
    """FLOPs of one matrix-like operation, two a multiply-add; None where it has no formula."""
    multiply_adds: int | None = None
    match func._schema.name.partition("::")[0], name:
        case "aten", str() if name.startswith("_scaled_dot_product") and "backward" not in name:
            query, key, value = args[:3]  # [..., heads, length, width]; torch's own formula refuses fewer heads of keys
            multiply_adds = query.numel() // query.shape[-1] * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        case "aten", "convolution_backward":
            shapes: list[Any] = [value.shape if isinstance(value, Tensor) else value for value in args]
            return convolution_backward_flops(*shapes)
        case "aten", str() if func._overloadpacket in flop_registry:
            return cast(int, flop_registry[func._overloadpacket](*args, **kwargs, out_val=result))
        case "aten", "mkldnn_rnn_layer" | "_cudnn_rnn" | "miopen_rnn":
            # Every step multiplies by every weight matrix once; biases are vectors.
            weights = sum(tensor.numel() for tensor in _tensors(args[1:5]) if tensor.dim() == 2)
            multiply_adds = args[0].numel() // args[0].shape[-1] * weights
        case "aten", "mv" | "dot" | "vdot" | "addmv":
            multiply_adds = args[1 if name == "addmv" else 0].numel()
        case "aten", "_int_mm":
            multiply_adds = args[0].numel() * args[1].shape[-1]
        case "quantized", str() if name.startswith("linear") and isinstance(result, Tensor):
            multiply_adds = args[0].numel() * result.shape[-1]
        case "quantized", str() if re.match(r"conv[123]d(_relu|_dynamic)?$", name):
            multiply_adds = result.numel() * args[1].unpack()[0][0].numel()
    return None if multiply_adds is None else 2 * multiply_adds


def convolution_backward_flops(
    grad_output: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    out_shape: Any = None,
) -> int:
    """FLOPs of a convolution's backward pass, by the shapes of its arguments, for a `FlopCounterMode`.

    The gradients of input and weight each take the multiply-adds of the forward pass: every output value (of a transposed
    convolution: every input value) meets the weights of its own group. torch's formula takes all groups for the weight's.
    """
    meeting = math.prod(x if transposed else grad_output) * math.prod(weight[1:])
    return 2 * meeting * (int(output_mask[0]) + int(output_mask[1]))


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_view(func: Any) -> bool:
    """Every output shares an input's memory unwritten; operations without outputs are none."""
    aliases = [output.alias_info for output in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments or results, those in lists and tuples included."""
    return [value for value in tree_leaves(list(values)) if isinstance(value, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
