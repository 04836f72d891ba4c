"""Inception features for rFID and KID: torch-fidelity's network (a port of the 2015-12-05 TensorFlow graph, TF1 resize).

On a CPU convolutions run channels-last, with batch normalisation folded into them, ReLU fused and weights packed once, and the
input is resized in two passes instead of four gathers: every value stays within 1e-4 of the plain form's (tests compare them).
On other devices the plain form runs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness import weights

_CLASSES, WIDTH = 1008, 2048
_SIDE = 299
_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
"""torch-fidelity's layers up to pool3, in the order images pass them"""
_VERSION = "2"
"""raise it when a change here moves features: cached ones are then computed again"""


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32 inside the block, so that no figure depends on what the decoder under test likes to run in; the
    caller's settings come back after it."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = convolution


def torch_fidelity_state_dict(offline: bool = False) -> dict[str, Tensor]:
    """The weights as torch-fidelity loads them, for its `feature_extractor_weights_path` (after `torch.save`).

    torch-fidelity loads strictly and so wants a classifier, which our sources do not share: it is NaN, so that no metric that
    needs it (the inception score) can look valid.

    Raises:
        MsbenchError: the weights are absent and cannot be fetched.
    """
    state = weights.load("inception", offline=offline)
    state["fc.weight"] = torch.full((_CLASSES, WIDTH), torch.nan)
    state["fc.bias"] = torch.full((_CLASSES,), torch.nan)
    return state


def _network(offline: bool) -> nn.Module:
    """torch-fidelity's network with its weights, frozen."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = torch_fidelity_state_dict(offline)
    file = io.BytesIO()  # torch-fidelity takes weights as a file only: names and shapes suffice, it need not copy them
    torch.save({name: tensor.to("meta") for name, tensor in state.items()}, file)
    file.seek(0)
    with torch.device("meta"):  # no initial weights are drawn
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(WIDTH)], feature_extractor_weights_path=file
        )
    network.load_state_dict(state, assign=True)
    return network.eval()


class FastInception:
    """Inception pool3 features of uint8 images.

    Args:
        device: where the network runs.
        offline: fetch no weights.
        plain: torch-fidelity's own form on a CPU too.

    Raises:
        MsbenchError: the weights are absent and cannot be fetched.
    """

    def __init__(self, device: torch.device, offline: bool = False, plain: bool = False) -> None:
        self._plain = plain or device.type != "cpu"
        network = _network(offline)
        self._network = network.to(device) if self._plain else _folded(network)
        self.identity = f"inception {weights.WEIGHTS['inception'].content_sha256} pool3 form {_VERSION} float32 {device.type}"
        """weights, code version and kind of device: features of equal pixels under one identity differ by rounding at most"""

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images [B, 3, H, W] of any size: float32 [B, 2048]."""
        if not self._plain:
            return self.pooled(resized(images))
        with full_float32(images.device):
            return torch.as_tensor(self._network(images)[0])

    @torch.no_grad()
    def pooled(self, inputs: Tensor) -> Tensor:
        """Features of what `resized` gives, or another resize in its place, in the form for a CPU: float32 [B, 2048]."""
        with full_float32(inputs.device):
            return torch.as_tensor(self._network(inputs.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3)))


def resized(images: Tensor) -> Tensor:
    """TensorFlow 1's bilinear resize to 299 px, then (x - 128) / 128, as torch-fidelity does, to the bit.

    Across first, then down: each pass gathers whole columns or rows, where the plain form gathers four full images.

    Args:
        images: uint8 or float [B, 3, H, W] in [0, 255].

    Returns:
        float32 [B, 3, 299, 299] in [-1, 1), channels-last in memory.
    """
    pixels = _lerp(images.permute(0, 3, 2, 1).float().contiguous())  # [B, W, H, C]: whole columns are gathered, not pixels
    pixels = _lerp(pixels.transpose(1, 2).contiguous())
    return pixels.sub_(128).div_(128).permute(0, 3, 1, 2)


def _lerp(pixels: Tensor) -> Tensor:
    """The second dimension of four brought to 299: output i lies at i · size / 299 of the input."""
    size = pixels.shape[1]
    place = torch.arange(_SIDE, dtype=torch.float32, device=pixels.device) * torch.tensor(size / _SIDE, dtype=torch.float32)
    low = place.long()
    weight = (place - low.float()).view(-1, 1, 1)
    start = pixels.index_select(1, low)
    return (pixels.index_select(1, (low + 1).clamp_max(size - 1)).sub_(start)).mul_(weight).add_(start)


class ConvRelu(nn.Module):
    """ReLU of a convolution; on a CPU with oneDNN in one pass, its weights packed once, for the shape of the first input."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self._packed: Tensor | None = None
        self._options = *(list(getattr(convolution, name)) for name in ("padding", "stride", "dilation")), convolution.groups

    def forward(self, inputs: Tensor) -> Tensor:
        """Float32 maps [B, C, H, W] -> float32 maps; without gradients."""
        one, options, onednn = self.convolution, self._options, torch.ops.mkldnn
        if inputs.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return functional.relu_(one(inputs))
        if self._packed is None:
            self._packed = onednn._reorder_convolution_weight(one.weight, *options, list(inputs.shape))
        return torch.as_tensor(onednn._convolution_pointwise(inputs, self._packed, one.bias, *options, "relu", [], ""))


def _folded(network: nn.Module) -> nn.Module:
    """The network's layers up to pool3's input, changed in place: batch normalisation folded into them, channels-last."""
    layers = nn.Sequential(*(getattr(network, name) for name in _LAYERS))
    for parent in [*layers.modules()]:
        for name, module in [*parent.named_children()]:
            convolution, normalisation = getattr(module, "conv", None), getattr(module, "bn", None)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                setattr(parent, name, ConvRelu(fuse_conv_bn_eval(convolution, normalisation)))
    return layers.to(memory_format=torch.channels_last).requires_grad_(False).eval()
