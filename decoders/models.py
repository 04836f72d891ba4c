"""The decoders as the harness sees them: the contract of `harness.decoder` over autoencoder, denoiser, flow and schedule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from decoders.autoencoder import Autoencoder
from decoders.blocks import pad_to_multiple
from decoders.checkpoint import Manifest, lineage_of, load_autoencoder, load_denoiser, shipped_path
from decoders.denoiser import Denoiser
from decoders.flow import FlowName, make_flow
from decoders.latents import FrozenEncoder, named_encoder, own_encoder
from decoders.presets import AUTOENCODERS, DIFFUSION, SizePreset, denoiser_config, size_preset
from decoders.sampling import Parts, begin, integrate, sample, split_steps
from harness.decoder import Compiler, Decoder, DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError, UnknownNameError
from harness.files import sha256_file
from harness.registry import find_entry
from harness.request.requests import parse_request

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class VaeDecoder:
    """The autoencoder's own decoder: one deterministic pass."""

    def __init__(self, autoencoder: Autoencoder, spec: DecoderSpec, options: DecoderOptions) -> None:
        self.spec = spec
        # Latents are computed in fp32 whatever --dtype says, so that every decoder gets the same ones.
        self.encoder = autoencoder.to(options.device)
        decoder_net = Autoencoder(autoencoder.config)
        decoder_net.load_state_dict(autoencoder.state_dict())
        self.network = _placed(decoder_net, options).eval().requires_grad_(False)
        self.run: Callable[[Tensor], Tensor] = self.network.decode
        self.dtype = options.dtype

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """See `Decoder.encode`: normalised posterior means."""
        return self.encoder.encode(images)

    @torch.inference_mode()
    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """See `Decoder.decode`; draws no noise."""
        return self.run(latents.to(self.dtype))

    def compiled(self, compiler: Compiler) -> Decoder:
        """See `Compilable.compiled`."""
        decoder = copy.copy(self)
        decoder.run = compiler(self.network.decode)
        return decoder


class DiffusionDecoder:
    """Any diffusion decoder: flow + denoiser + steps; many steps or one, at one scale or several."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        denoiser: Denoiser,
        flow: FlowName,
        steps: tuple[int, ...],
        spec: DecoderSpec,
        options: DecoderOptions,
    ) -> None:
        self.spec = spec
        self.steps = steps
        self.flow = make_flow(flow, denoiser.config.scales)
        self.encoder = encoder
        self.denoiser = _placed(denoiser, options)
        self.sample = sample
        self.parts: Parts | None = None
        self.dtype = options.dtype

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """See `Decoder.encode`: latents as their encoder gives them, which every decoder of that encoder takes."""
        return self.encoder.encode(images)

    @torch.inference_mode()
    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """See `Decoder.decode`. Any latent size: padded to what the coarsest scale needs, cropped after."""
        return self.decode_scales(latents, noise, None)

    @torch.inference_mode()
    def decode_scales(self, latents: Tensor, noise: NoiseSource, on_scale: Callable[[int, Tensor], None] | None) -> Tensor:
        """`decode`, with a callback that gets (k, end of scale k) of the padded image, for previews."""
        factor = self.denoiser.config.down_factor
        height, width = latents.shape[-2] * factor, latents.shape[-1] * factor
        if self.encoder.moments is not None:
            mean, std = self.encoder.moments
            latents = (latents - mean) / std
        padded = pad_to_multiple(latents.to(self.dtype), 2 ** (self.flow.scales - 1))
        return self.sample(self.denoiser, self.flow, padded, self.steps, noise, on_scale, self.parts)[..., :height, :width]

    def compiled(self, compiler: Compiler) -> Decoder:
        """See `Compilable.compiled`: all of it with one step a scale; else a step, a scale's start and the projection."""
        decoder = copy.copy(self)
        if max(self.steps) == 1:
            decoder.sample = compiler(sample)
        else:
            decoder.parts = Parts(compiler(self.denoiser.project), compiler(begin), compiler(integrate))
        return decoder


def _placed(network: ModuleT, options: DecoderOptions) -> ModuleT:
    """The network on its device, in its dtype; in half precision channels-last, as matrix units want it (tensor cores, AMX)."""
    network = network.to(options.device, options.dtype)
    if options.dtype == torch.float32:
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _random(build: Callable[[], ModuleT]) -> ModuleT:
    """A network with random weights, always the same ones, without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval().requires_grad_(False)


def _size(options: DecoderOptions) -> SizePreset:
    """Sizes of networks with random weights; raises `UnknownNameError`."""
    return size_preset(options.preset or "nano")


def _autoencoder(options: DecoderOptions, path: Path) -> tuple[Autoencoder, str | None, Manifest | None]:
    if options.weights == "random":
        return _random(lambda: Autoencoder(_size(options).autoencoder)), None, None
    module, manifest = load_autoencoder(path)
    return module, sha256_file(path), manifest


def _training(manifest: Manifest | None) -> dict[str, Any]:
    """What a spec says of its training; None = random weights."""
    if manifest is None:
        return {"trained_on": "random weights"}
    return {key: getattr(manifest, key) for key in ("trained_on", "training_seed", "recipe_sha256")}


def build(options: DecoderOptions) -> Decoder:
    """The decoder called `options.name`: one of `AUTOENCODERS` or of `DIFFUSION`.

    Raises:
        MsbenchError: steps or scales it cannot have, a preset beside a checkpoint, or the checkpoint is missing, damaged, of
            another kind, flow or number of scales, or its latents are another encoder's.
        UnknownNameError: no such decoder or preset.
    """
    name = options.name
    if name not in (*AUTOENCODERS, *DIFFUSION):
        raise UnknownNameError("decoder", name, (*AUTOENCODERS, *DIFFUSION))
    if options.preset is not None and options.weights != "random":
        raise MsbenchError(f"{name}: preset={options.preset} goes with weights=random alone; a checkpoint says its own size")
    return _build_autoencoder(name, options) if name in AUTOENCODERS else _build_diffusion(name, options)


def _build_autoencoder(name: str, options: DecoderOptions) -> VaeDecoder:
    if options.steps not in (None, 1) or options.scales not in (None, 1):
        raise MsbenchError(f"{name} decodes in one step at one scale: leave --steps and --scales out")
    autoencoder, sha256, manifest = _autoencoder(options, options.checkpoint or shipped_path(name))
    config = autoencoder.config
    spec = DecoderSpec(
        name=name,
        down_factor=config.down_factor(),
        latent_channels=config.latent_channels,
        steps=1,
        scales=1,
        parameters=sum(p.numel() for p in autoencoder.decoder.parameters()),
        weights_sha256=sha256,
        # A tuned decoder keeps the encoder it was tuned on, so its latents are those of that encoder's file.
        encoder_sha256=manifest.encoder_sha256 or sha256 if manifest else sha256,
        **_training(manifest),
    )
    return VaeDecoder(autoencoder, spec, options)


def _build_diffusion(name: str, options: DecoderOptions) -> DiffusionDecoder:
    preset = DIFFUSION[name]
    flow = preset.flow
    scales = preset.scales if options.scales is None else options.scales
    default_steps = preset.steps if preset.steps > preset.scales else scales
    steps = split_steps(default_steps if options.steps is None else options.steps, scales)
    if options.weights == "random":
        if options.own:
            raise MsbenchError(f"{name}: encoder={options.own['encoder']} goes with a checkpoint, not with random weights")
        autoencoder, _, manifest = _autoencoder(options, Path())
        encoder = own_encoder(autoencoder.to(options.device), None)
        denoiser = _random(lambda: Denoiser(denoiser_config(_size(options), scales)))
        weights_sha256, lineage = None, {}
    else:
        path = options.checkpoint or shipped_path(name)
        denoiser, manifest = load_denoiser(path)
        trained_scales = denoiser.config.scales
        if trained_scales != scales:
            raise MsbenchError(
                f"{path} was trained for {trained_scales} scales, not {scales}; take it as it is with --scales {trained_scales}"
            )
        if manifest.flow != flow and not (scales == 1 and {manifest.flow, flow} == {"cascade", "pyramid"}):
            raise MsbenchError(f"{path} was trained on the {manifest.flow} flow; {name} needs {flow}")
        weights_sha256 = sha256_file(path)
        lineage = lineage_of(path, weights_sha256) | {"flow": manifest.flow}
        encoder = _encoder(path, manifest, options)
    spec = DecoderSpec(
        name=name,
        down_factor=denoiser.config.down_factor,
        latent_channels=denoiser.config.latent_channels,
        steps=sum(steps),
        scales=scales,
        parameters=sum(p.numel() for p in denoiser.parameters()),
        weights_sha256=weights_sha256,
        encoder_sha256=encoder.sha256,
        **_training(manifest),
        **lineage,
    )
    return DiffusionDecoder(encoder, denoiser, flow, steps, spec, options)


def _encoder(path: Path, manifest: Manifest, options: DecoderOptions) -> FrozenEncoder:
    """The encoder whose latents the denoiser in a checkpoint was trained on.

    Raises:
        MsbenchError: it cannot be built, or is another one.
    """
    place, sha256, latents = options.own.get("encoder"), manifest.encoder_sha256, manifest.latents
    if latents is None:
        found = encoder_path(path, sha256, place)
        return own_encoder(load_autoencoder(found)[0].to(options.device), sha256_file(found))
    request = parse_request(latents.encoder)
    if place is not None:  # of a kind or a file the name is where it lies
        request = replace(request, name=place) if find_entry(request.name)[1] else replace(request, checkpoint=Path(place))
    try:
        encoder = named_encoder(request, options.device, options.offline)
        if encoder.sha256 != sha256:
            raise MsbenchError(f"its sha256 is {encoder.sha256}, not {sha256}")
    except MsbenchError as error:
        raise MsbenchError(f"{path} needs the encoder of {latents.encoder} ({error}): say where by @encoder=PATH") from error
    return replace(encoder, moments=latents.moments(options.device))


def encoder_path(checkpoint: Path, sha256: str | None, place: str | None = None) -> Path:
    """The autoencoder a denoiser's latents come from: `place`, else `vae.safetensors` beside it, else the shipped one.

    Raises:
        MsbenchError: no such file is the one the denoiser was trained on.
    """
    beside, shipped = checkpoint.parent / "vae.safetensors", shipped_path("vae")
    wanted = (beside, shipped) if place is None else (Path(place),)
    candidates = [path for path in dict.fromkeys(wanted) if path.is_file()]
    for path in candidates:
        if sha256_file(path) == sha256:
            return path
    looked = ", ".join(str(path) for path in candidates) or f"none (looked for {wanted[0]})"
    raise MsbenchError(f"{checkpoint} was trained on latents of an encoder with sha256 {sha256}; found only {looked}")
