"""`bicubic`: the floor. Shrinks by 8 with antialiasing, enlarges by 8; a decoder below it has learned nothing of use."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from baselines.options import refuse_network_options, require_multiple, spec_of
from harness.decoder import DecoderOptions, NoiseSource

_FACTOR = 8


class BicubicDecoder:
    """Bicubic resampling both ways, in float32 whatever the run's dtype.

    Latents: float32 [B, 3, H/8, W/8] in [-1, 1]: three numbers a position where f8c4 has four.
    """

    spec = spec_of("bicubic", _FACTOR, 3)

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, 3, H/8, W/8] in [-1, 1]. Raises `MsbenchError` unless 8 divides H and W."""
        require_multiple("bicubic", images, _FACTOR)
        height, width = images.shape[-2] // _FACTOR, images.shape[-1] // _FACTOR
        small = functional.interpolate(images.float(), (height, width), mode="bicubic", align_corners=False, antialias=True)
        return small.clamp(-1.0, 1.0)  # the bicubic kernel overshoots at edges

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """[B, 3, h, w] -> [B, 3, 8h, 8w], float32; overshoots are left to the harness's clamp. `noise` is not drawn from."""
        return functional.interpolate(latents.float(), scale_factor=_FACTOR, mode="bicubic", align_corners=False)


def bicubic(options: DecoderOptions) -> BicubicDecoder:
    """Build `bicubic`. Raises `MsbenchError` for steps, scales, a checkpoint or random weights."""
    refuse_network_options("bicubic", options)
    return BicubicDecoder()
