"""`taef2`: the Tiny AutoEncoder for FLUX.2 (Ollin Boer Bohan, MIT licence), a pretrained f8c32 tokenizer.

The network is written here anew after the tensors of the two files: 3×3 convolutions and ReLU alone, except that the blocks
at the latents' grid also mix channels through a normalised 1×1 bottleneck. Layers carry the files' indices: loading is strict.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.options import refuse_sampling_options, require_multiple, spec_of
from harness.decoder import DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError, plugin_boundary
from harness.files import sha256_file

_FACTOR = 8
_LATENT_CHANNELS = 32
_WIDTH = 64
_GROUPS = 4  # not in the files; every other power of two reconstructs worse
_SOFT_LIMIT = 3.0


class Block(nn.Module):
    """Residual block, [B, 64, H, W] -> the same shape.

    Args:
        bottleneck: first add a channel-mixing branch: 1×1 to 256 channels, GroupNorm, ReLU, 1×1 back.
    """

    def __init__(self, bottleneck: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        )
        self.pool: nn.Sequential | None = None
        if bottleneck:
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, 4 * _WIDTH, 1, bias=False),
                nn.GroupNorm(_GROUPS, 4 * _WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * _WIDTH, _WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, 64, H, W] -> [B, 64, H, W], not negative."""
        if self.pool is not None:
            x = x + self.pool(x)
        out: Tensor = torch.relu(x + self.conv(x))
        return out


class SoftLimit(nn.Module):
    """Squashes latents smoothly into (-3, 3), as the decoder was trained to see them."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return torch.tanh(x / _SOFT_LIMIT) * _SOFT_LIMIT


def build_encoder() -> nn.Sequential:
    """[B, 3, H, W] in [0, 1] -> [B, 32, H/8, W/8]."""
    layers: list[nn.Module] = [nn.Conv2d(3, _WIDTH, 3, padding=1), Block(bottleneck=False)]
    for level in range(3):
        layers.append(nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, bias=False))
        layers += [Block(bottleneck=level == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTH, _LATENT_CHANNELS, 3, padding=1))


def build_decoder() -> nn.Sequential:
    """[B, 32, h, w] -> [B, 3, 8h, 8w], nominally in [0, 1]."""
    layers: list[nn.Module] = [SoftLimit(), nn.Conv2d(_LATENT_CHANNELS, _WIDTH, 3, padding=1), nn.ReLU()]
    for level in range(3):
        layers += [Block(bottleneck=level == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, Block(bottleneck=False), nn.Conv2d(_WIDTH, 3, 3, padding=1))


class TinyAutoencoder:
    """The pair of networks behind the contract. Latents: [B, 32, H/8, W/8] in the arithmetic of the networks.

    Args:
        encoder, decoder: from `build_encoder` and `build_decoder`, in evaluation mode, on the device of the run.
        dtype: their arithmetic.
        spec: what the record says.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, dtype: torch.dtype, spec: DecoderSpec) -> None:
        self.encoder = encoder
        self.decoder = decoder
        self.dtype = dtype
        self.spec = spec

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, 32, H/8, W/8]. Raises `MsbenchError` unless 8 divides H and W."""
        require_multiple(self.spec.name, images, _FACTOR)
        latents: Tensor = self.encoder(images.to(self.dtype).add(1.0).div(2.0))
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """[B, 32, h, w] -> float32 [B, 3, 8h, 8w], nominally in [-1, 1]; deterministic, `noise` is not drawn from."""
        images: Tensor = self.decoder(latents.to(self.dtype))
        return images.float().mul(2.0).sub(1.0)


def _load(network: nn.Module, path: Path) -> str:
    """Load `path` into `network` strictly; return the file's SHA-256."""
    if not path.is_file():
        raise MsbenchError(
            f"decoder 'taef2': no file {path}; --checkpoint names a folder with taef2_encoder.pth and taef2_decoder.pth"
        )
    with plugin_boundary(f"decoder 'taef2': {path} does not hold the weights expected, fetch it again", "reading it"):
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return sha256_file(path)


def taef2(options: DecoderOptions) -> TinyAutoencoder:
    """Build `taef2` from the folder `options.checkpoint`; with `weights="random"` no folder is needed.

    Raises `MsbenchError` for steps or scales, and for a checkpoint that is missing or does not fit.
    """
    refuse_sampling_options("taef2", options)
    encoder, decoder = build_encoder(), build_decoder()
    encoder_sha256 = weights_sha256 = None
    if options.weights == "trained":
        if options.checkpoint is None:
            raise MsbenchError(
                "decoder 'taef2' ships no weights; pass --checkpoint FOLDER with taef2_encoder.pth and taef2_decoder.pth"
            )
        encoder_sha256 = _load(encoder, options.checkpoint / "taef2_encoder.pth")
        weights_sha256 = _load(decoder, options.checkpoint / "taef2_decoder.pth")
    memory = torch.preserve_format if options.dtype == torch.float32 else torch.channels_last  # as the networks beside it
    for network in (encoder, decoder):
        network.to(options.device, options.dtype, memory_format=memory).eval().requires_grad_(False)  # type: ignore[call-overload]
    trained_on = "unknown (TAE for FLUX.2, pretrained)" if options.weights == "trained" else "random weights"
    spec = spec_of("taef2", _FACTOR, _LATENT_CHANNELS, decoder, trained_on, weights_sha256, encoder_sha256)
    return TinyAutoencoder(encoder, decoder, options.dtype, spec)
