"""FLOPs of a decode, counted operation by operation while it runs, not taken from a formula of the network's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.decoder import Decoder, NoiseSource


def count_flops(decoder: Decoder, latents_one: Tensor, noise: NoiseSource) -> float | None:
    """GFLOPs per image of one `decode`, over all steps and scales; None where nothing counted ran (no network).

    A multiply-add is two FLOPs. Counted: convolutions, matrix products (linear layers too) and attention. Not counted:
    element-wise work, normalisation, activations, resampling and the noise generator. Operations inside a compiled
    function are not seen: count the eager decoder.

    Args:
        decoder: counted in eager mode, in whatever dtype and on whatever device it was built.
        latents_one: latents of one image, [1, ...] (a larger batch is divided out).
        noise: a source for as many samples.
    """
    # Only the plain kernel is made of counted products on every device: the CPU's fused attention counts as nothing.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder.decode(latents_one, noise)
    total = counter.get_total_flops()
    return total / latents_one.shape[0] / 1e9 if total else None
