"""The optional adversarial term: two small discriminators, hinge loss, and the adaptive weight of VQGAN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.blocks import PixelNorm
from decoders.settings import Beta, Count, Rate, Share, Weight
from decoders.training.distributed import Group
from harness.errors import MsbenchError
from harness.metrics.lpips import Lpips

DiscriminatorName = Literal["patch", "vgg"]

MAX_ADAPTIVE_WEIGHT = 1e4
SLOPE = 0.2


@dataclass(frozen=True, slots=True)
class AdversaryConfig:
    """The adversarial term of an objective; off by default."""

    weight: Weight = 0.0
    """factor on the adaptive weight; 0 = no adversary at all"""
    network: DiscriminatorName = "patch"
    """patch (convolutions on pixels) or vgg (heads on the frozen features of LPIPS's VGG16)"""
    start: Share = 0.5
    """progress, 0 to 1, from which the adversary learns and acts"""
    learning_rate: Rate = 2e-4
    """the discriminator's AdamW, constant"""
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    """the discriminator's AdamW"""
    crop: Count = 64
    """side of the random sub-crop that is scored, in pixels"""


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of 47 px (PatchGAN: Isola et al., 1611.07004), each normalised per pixel, not per batch.

    [B, 3, H, W] of any H and W -> one map of logits [B, 1, ⌈H/8⌉, ⌈W/8⌉].
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1), PixelNorm(channels_out)]
            layers.append(nn.LeakyReLU(SLOPE))
        del layers[1]  # a norm right after the pixels would hide their contrast
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), PixelNorm(widths[-1]), nn.LeakyReLU(SLOPE)]
        layers.append(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.body(images)]


class VggFeatures:
    """Four feature maps of the frozen VGG16 inside LPIPS. Not a module: its weights are neither trained, saved nor sent."""

    channels = (128, 256, 512, 512)

    def __init__(self, lpips: Lpips) -> None:
        self.scale: nn.Module = lpips.network.scaling_layer  # type: ignore[assignment]
        trunk: nn.Module = lpips.network.net  # type: ignore[assignment]
        self.slices: list[nn.Module] = [getattr(trunk, f"slice{index}") for index in range(1, 6)]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] in [-1, 1], sides of 16 px at least -> relu2_2, relu3_3, relu4_3, relu5_3; grids H/2 to H/16."""
        h = self.slices[0](self.scale(images))
        features = []
        for part in self.slices[1:]:
            h = part(h)
            features.append(h)
        return features


class FeatureDiscriminator(nn.Module):
    """A small convolutional head on each of several frozen feature maps (after Projected GANs: Sauer et al., 2111.01007).

    [B, 3, H, W] in [-1, 1] -> one map of logits [B, 1, h, w] per feature map.
    """

    def __init__(self, features: Callable[[Tensor], list[Tensor]], channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.features = features
        self.heads = nn.ModuleList(
            nn.Sequential(
                PixelNorm(count),
                nn.Conv2d(count, width, 1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(width, 1, 1),
            )
            for count in channels
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        return [head(maps) for head, maps in zip(self.heads, self.features(images), strict=True)]


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))] (Lim & Ye, 1705.02894), mean over the maps; a scalar >= 0."""
    values = [F.relu(1.0 - r.float()).mean() + F.relu(1.0 + f.float()).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(values).mean()


def generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """-E[D(fake)], mean over the maps; a scalar."""
    return -torch.stack([logits.float().mean() for logits in fake]).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """|∇ reconstruction| / (|∇ adversarial| + 1e-6) at the last layer, at most 1e4 (VQGAN: Esser et al., 2012.09841, eq. 7).

    Both losses keep their graphs; the weight has none.
    """
    (by_reconstruction,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (by_adversary,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio: Tensor = by_reconstruction.norm() / (by_adversary.norm() + 1e-6)
    return ratio.clamp(max=MAX_ADAPTIVE_WEIGHT).detach()


class Adversary:
    """A discriminator, its optimiser, and the term it adds to another network's loss."""

    def __init__(self, config: AdversaryConfig, discriminator: nn.Module) -> None:
        self.config = config
        self.discriminator = discriminator
        self.parameters = list(discriminator.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.betas, weight_decay=0.0, fused=True
        )
        self.group: Group | None = None

    def use_group(self, group: Group) -> None:
        """Train the discriminator with other processes: one set of weights now, averaged gradients from here on."""
        self.group = group
        group.broadcast(self.discriminator)

    def term(
        self,
        fake: Tensor,
        real: Tensor,
        reconstruction: Tensor,
        last_layer: Tensor,
        generator: torch.Generator,
        progress: float,
    ) -> tuple[Tensor, dict[str, float]]:
        """One step of the discriminator on the detached images, then the weighted term for the network that made them.

        Before `config.start` nothing is learned or drawn, and the term is 0.

        Args:
            fake: the network's images, [B, 3, H, W] in [-1, 1], with their graph.
            real: what they should be, of the same shape.
            reconstruction: the loss that the adaptive weight balances against, a scalar with its graph.
            last_layer: the weight through which both losses reach the network.
            generator: the only source of draws.
            progress: share of the budget that is used up.

        Returns:
            The term, a scalar to be added to the loss, and named values for the log: the same names at every step.

        Raises:
            MsbenchError: the discriminator diverged.
        """
        if progress < self.config.start:
            return torch.zeros((), device=fake.device), {"adversarial": 0.0, "discriminator": 0.0, "adaptive": 0.0}
        y, x, size = self._window(fake, generator)
        fake, real = (images[..., y : y + size, x : x + size].float() for images in (fake, real))
        kind = fake.device.type
        # Uncached: a cached bf16 copy of the discriminator's weights would outlive the step that changes them.
        with torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False):
            loss = self._step(fake.detach(), real.detach())
            self.discriminator.requires_grad_(False)
            adversarial = generator_loss(self.discriminator(fake))
            self.discriminator.requires_grad_(True)
        adaptive = adaptive_weight(reconstruction, adversarial, last_layer)
        parts = {"adversarial": float(adversarial.detach()), "discriminator": loss, "adaptive": float(adaptive)}
        return self.config.weight * adaptive * adversarial, parts

    def extra_state(self) -> dict[str, Any]:
        """What an exact resume needs: tensors and plain numbers only."""
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from `extra_state`.

        Raises:
            MsbenchError: it is another discriminator's.
        """
        try:
            self.discriminator.load_state_dict(state["discriminator"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise MsbenchError(
                f"the saved run has no discriminator like {self.config.network!r}; give the settings it began with, "
                "or start afresh in another folder"
            ) from error

    def _window(self, images: Tensor, generator: torch.Generator) -> tuple[int, int, int]:
        height, width = images.shape[-2:]
        size = min(self.config.crop, height, width)
        y, x = (int(torch.randint(side - size + 1, (), generator=generator)) for side in (height, width))
        return y, x, size

    def _step(self, fake: Tensor, real: Tensor) -> float:
        logits = self.discriminator(torch.cat([real, fake]))
        loss = discriminator_loss(*zip(*(maps.chunk(2) for maps in logits), strict=True))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise MsbenchError(f"the discriminator diverged: loss {value}; lower the adversary's learning rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.group is not None:
            self.group.average_gradients(self.parameters)
        self.optimizer.step()
        return value


class Adversarial:
    """What objectives with an optional adversary share: its start, its processes and its state."""

    def __init__(self, adversary: Adversary | None, last_layer: Tensor) -> None:
        """`last_layer`: the weight through which all losses reach the network."""
        self.adversary, self.last_layer = adversary, last_layer

    def phase(self, progress: float) -> str:
        """What a step computes: it costs more FLOPs once the adversary acts."""
        return "adversarial" if self.adversary is not None and progress >= self.adversary.config.start else "plain"

    def use_group(self, group: Group) -> None:
        """Train the adversary, if there is one, together with the other processes."""
        if self.adversary is not None:
            self.adversary.use_group(group)

    def judged(
        self, total: Tensor, parts: dict[str, float], fake: Tensor, real: Tensor, draws: torch.Generator, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss and its named parts, with the adversary's term on an output and what it should be, where there is one."""
        if self.adversary is None:
            return total, parts
        term, named = self.adversary.term(fake, real, total, self.last_layer, draws, progress)
        return total + term, parts | named

    def extra_state(self) -> dict[str, Any]:
        """What a resume needs beside the module: the adversary's state."""
        return {} if self.adversary is None else {"adversary": self.adversary.extra_state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from `extra_state`.

        Raises:
            MsbenchError: the saved run had another adversary, or none where this one has.
        """
        if ("adversary" in state) != (self.adversary is not None):
            saved = "with" if "adversary" in state else "without"
            raise MsbenchError(
                f"the saved run was trained {saved} an adversary; give the settings it began with, "
                "or start afresh in another folder"
            )
        if self.adversary is not None:
            self.adversary.load_extra_state(state["adversary"])


def make_adversary(config: AdversaryConfig, device: torch.device, seed: int, lpips: Lpips | None = None) -> Adversary | None:
    """The adversary that `config` asks for, or None where its weight is 0; initial weights come from `seed` alone.

    Args:
        lpips: LPIPS on VGG16, on `device`; needed by `network="vgg"`, which shares its trunk.

    Raises:
        MsbenchError: no VGG16 to share.
    """
    if config.weight == 0.0:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = PatchDiscriminator() if config.network == "patch" else _on_features(lpips)
    return Adversary(config, discriminator.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def _on_features(lpips: Lpips | None) -> FeatureDiscriminator:
    if lpips is None or not hasattr(lpips.network.net, "slice5") or lpips.network.chns[0] != 64:  # type: ignore[union-attr,index]
        raise MsbenchError("the vgg discriminator shares LPIPS's VGG16: train on LPIPS vgg, or use the patch discriminator")
    features = VggFeatures(lpips)
    return FeatureDiscriminator(features, features.channels)
