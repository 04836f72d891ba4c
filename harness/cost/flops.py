"""FLOPs and bytes of a decode, counted operation by operation while it runs, not taken from a formula of the network's.

What torch's FlopCounterMode counts: `mm`, `addmm`, `bmm`, `baddbmm` (so linear layers, einsum and plain attention too) and
convolutions, grouped, dilated and transposed ones included, each multiply-add as two FLOPs, products with padding's zeros too.
What it misses, in the decoders of this field:

- the bias of a convolution, `addmm` or `baddbmm`: one addition an output element;
- element-wise arithmetic, activations, normalisation, softmax, pooling, resampling, reductions;
- `mv`, `dot` and other products with vectors, FFTs, recurrent layers, custom kernels: counted as nothing;
- the CPU's fused attention and the fused transformer layers: both are switched off here while counting;
- integer arithmetic (the noise generator's) and whatever runs inside a compiled function.

The first two are estimated apart (`Work.elementwise_gflops`), never added to `gflops`: one FLOP an element. That is low for an
operation that does more to an element, as a normalisation or an exponential does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

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

    def gigabytes(self, batch_size: int = 1) -> float:
        """GB moved per image at a batch size: weights are read once a call, the rest once an image."""
        return self.activation_gb + self.weight_gb / batch_size


def count_flops(decoder: Decoder, latents_one: Tensor, noise: NoiseSource) -> float | None:
    """GFLOPs per image of one `decode`, over all steps and scales; None where nothing counted ran (no network).

    A multiply-add is two FLOPs. Counted: convolutions, matrix products (linear layers too) and attention. Not counted:
    element-wise work, normalisation, activations, resampling and the noise generator (`count_work` estimates those).
    Operations inside a compiled function are not seen: count the eager decoder.

    Args:
        decoder: counted in eager mode, in whatever dtype and on whatever device it was built.
        latents_one: latents of one image, [1, ...] (a larger batch is divided out).
        noise: a source for as many samples.
    """
    with torch.no_grad(), _plain_kernels(), FlopCounterMode(display=False) as counter:
        decoder.decode(latents_one, noise)
    total = counter.get_total_flops()
    return total / latents_one.shape[0] / 1e9 if total else None


def count_work(decoder: Decoder, latents_one: Tensor, noise: NoiseSource) -> Work:
    """FLOPs of both kinds and bytes of one `decode`, in one pass; the arguments are those of `count_flops`.

    Bytes are those of every tensor each operation takes and gives, views left out, an expanded tensor counted at the size of
    its memory. An upper bound of the traffic: fused kernels never write what lies between, and caches keep small tensors.
    """
    tally = _Tally([latents_one])
    # The tally comes last and so sees operations first: the counter replaces some kernels by their definitions in Python.
    with torch.no_grad(), _plain_kernels(), FlopCounterMode(display=False) as counter, tally:
        decoder.decode(latents_one, noise)
    images = latents_one.shape[0]
    total = counter.get_total_flops()
    return Work(
        gflops=total / images / 1e9 if total else None,
        elementwise_gflops=tally.elementwise / images / 1e9,
        activation_gb=tally.made_bytes / images / 1e9,
        weight_gb=tally.held_bytes / 1e9,
    )


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Attention and transformer layers run as the products they are made of: their fused kernels count as nothing on a CPU."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums bytes and uncounted floating-point work of every operation that runs inside.

    Args:
        made: tensors counted as made by the decode though they were there before (the latents).
    """

    def __init__(self, made: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elementwise = 0
        self.made_bytes = 0
        self.held_bytes = 0
        # Memory held from before is never handed out again while it is held, so an address tells the two apart.
        self._made = {_address(tensor) for tensor in made}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            # Inference mode hands composite operations over whole: take them apart as PyTorch itself does.
            with self:
                return func._op_dk(_COMPOSITE, *args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.rpartition("::")[2]
        taken, given = _tensors([*args, *(kwargs or {}).values()]), _tensors([result])
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
            self.elementwise += _uncounted(func, name, args, taken, given)
        return result


def _uncounted(func: Any, name: str, args: Sequence[Any], taken: list[Tensor], given: list[Tensor]) -> int:
    """FLOPs of one operation that the counter leaves out: one per element, of the larger side where it reduces."""
    if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in given):
        return 0
    if func._overloadpacket in flop_registry:
        place = _BIAS_ARGUMENT.get(name)
        return given[0].numel() if place is not None and isinstance(args[place], Tensor) else 0
    if name in _MOVES:
        return 0
    return max(tensor.numel() for tensor in (*taken, *given) if tensor.is_floating_point() or tensor.is_complex())


def _is_view(func: Any) -> bool:
    """Every output shares an input's memory unwritten; operations without outputs are none."""
    aliases = [output.alias_info for output in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments or results, those in lists and tuples included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
