"""`diffusers:PATH_OR_REPO[#SUBFOLDER]`, autoencoders of `diffusers`; and four architectures, called `…-arch`.

Latents are what a generative model sees: scaled, shifted and, for FLUX.2, patched as the pipelines of `diffusers` do it, in
float32 whatever the network's arithmetic; `decode` undoes that, so that pixels are those of `diffusers`. The latents of a
`VQModel` are indices into its codebook, which stays in float32. Only safetensors are read.

The architectures have random weights, for cost only: time, FLOPs and memory do not depend on them. Their settings are those of
published configurations: SD-VAE's and TAESD's; `vae/config.json` of black-forest-labs/FLUX.2-dev, shared by FLUX.2 [klein]; and
mit-han-lab/dc-ae-f32c32-sana-1.0 as `scripts/convert_dcae_to_diffusers.py` of `diffusers` states it. At 256 px
`harness.cost.flops` counts 622, 35.3, 622 and 523 GFLOPs an image, a multiply-add being two.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.options import refuse_sampling_options, require_multiple
from harness.decoder import DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError, plugin_boundary
from harness.files import sha256_file

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model"
_PROBE = 256  # side whose latents give factor and channels: a multiple of every factor in use
_SEED = 0
_OTHER_RANGE = ("AutoencoderRAE",)
_KL = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_DC = {f"{half}_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3 for half in ("encoder", "decoder")}
_ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "sd-vae-arch": {"_class_name": "AutoencoderKL", "latent_channels": 4, **_KL},
    "taesd-arch": {"_class_name": "AutoencoderTiny", "latent_channels": 4},
    "flux2-vae-arch": {"_class_name": "AutoencoderKLFlux2", "latent_channels": 32, "patch_size": (2, 2), **_KL},
    # Widths, depths and scales of attention are defaults of `diffusers`; a test holds the parameters against those published.
    "dc-ae-arch": {
        "_class_name": "AutoencoderDC",
        "downsample_block_type": "conv",
        "upsample_block_type": "interpolate",
        **_DC,
    },
}


class DiffusersDecoder:
    """An autoencoder of `diffusers` behind the contract.

    Latents: float32 [B, C, H/f, W/f]; int64 [B, H/f, W/f] for a `VQModel`.

    Args:
        model: in evaluation mode, on the device of the run.
        spec: what the record says.
        sample: encode to a sample of the posterior, from torch's global generator, which a run seeds by image; else its mode.
    """

    def __init__(self, model: Any, spec: DecoderSpec, sample: bool = False) -> None:
        self.model, self.spec, self._sample = model, spec, sample
        self._dtype = next(model.parameters()).dtype
        self._mean, self._deviation = _moments(model)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> latents. Raises `MsbenchError` unless the factor divides H and W."""
        require_multiple(self.spec.name, images, self.spec.down_factor)
        code = _code(self.model, images.to(self._dtype), self._sample)
        return (code.float() - self._mean) / self._deviation if code.is_floating_point() else code

    @torch.no_grad()
    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """Latents -> float32 [B, 3, H, W], nominally in [-1, 1]; a `ConsistencyDecoderVAE` draws its seeds from `noise`."""
        model = self.model
        if _quantises(model):
            code = model.quantize.embedding(latents).movedim(-1, 1).to(self._dtype)
            spatial = code if model.config.norm_type == "spatial" else None
            images: Tensor = model.decoder(model.post_quant_conv(code), spatial)
            return images.float()
        code = functional.pixel_shuffle(latents.float() * self._deviation + self._mean, _patch(model)).to(self._dtype)
        if _draws(model):
            words = noise.normal((2,), 0).view(torch.int32).tolist()  # two floats hold more than 32 bits of the stream
            seeds = [(first << 32 | second & 0xFFFFFFFF) & (2**63 - 1) for first, second in words]
            generators = [torch.Generator(code.device).manual_seed(seed) for seed in seeds]
            images = model.decode(code, generator=generators).sample
        else:
            images = model.decode(code.unsqueeze(2) if _takes_video(model) else code).sample
        return (images.squeeze(2) if _takes_video(model) else images).float()


class ArchitectureOnly(DiffusersDecoder):
    """A decoder whose weights are random; its latents are made of colours, since time does not depend on them."""

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, C, H/f, W/f]: f×f means of the three colours and of all, C/4 times; for an encoder's.

        Raises `MsbenchError` unless the factor f divides H and W.
        """
        require_multiple(self.spec.name, images, self.spec.down_factor)
        colours = functional.avg_pool2d(images, self.spec.down_factor)
        four = torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1).to(self._dtype)
        return four.repeat(1, (self.spec.latent_channels or 4) // 4, 1, 1)


def _quantises(model: Any) -> bool:
    return isinstance(getattr(model, "quantize", None), nn.Module)


def _draws(model: Any) -> bool:
    return hasattr(model, "decoder_scheduler")


def _takes_video(model: Any) -> bool:
    """Images are videos of one frame to it, as to Wan's and Qwen-Image's."""
    return any(isinstance(module, nn.Conv3d) for module in model.modules())


def _patch(model: Any) -> int:
    """Side of the patches that FLUX.2's pipeline folds into channels, before its batch norm normalises them; else 1."""
    return int(model.config.patch_size[0]) if hasattr(model, "bn") else 1


def _code(model: Any, images: Tensor, sample: bool = False) -> Tensor:
    """What an autoencoder encodes images [B, 3, H, W] to, not scaled yet; indices where it quantises."""
    video = _takes_video(model)
    found = model.encode(images.unsqueeze(2) if video else images)
    if hasattr(found, "latent_dist"):
        code: Tensor = found.latent_dist.sample() if sample else found.latent_dist.mode()
    elif sample:
        raise MsbenchError(f"a {type(model).__name__} has no posterior to sample: leave posterior=sample out")
    else:
        code = found.latents if hasattr(found, "latents") else found.latent
    if _quantises(model):
        indices: Tensor = model.quantize(code.float())[2][2]
        return indices.reshape(code.shape[0], *code.shape[2:])
    return functional.pixel_unshuffle(code.squeeze(2) if video else code, _patch(model))


def _moments(model: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation, float32 [C or 1, 1, 1], as the pipelines apply them: latents = (code - mean) / deviation."""
    config = model.config
    if hasattr(model, "bn"):
        mean, deviation = model.bn.running_mean, (model.bn.running_var.float() + config.batch_norm_eps).sqrt()
    else:
        means, deviations = config.get("latents_mean"), config.get("latents_std")
        mean = torch.tensor([config.get("shift_factor") or 0.0] if means is None else means, device=model.device)
        deviation = torch.tensor([1.0] if deviations is None else deviations, device=model.device)
        deviation = deviation / (config.get("scaling_factor") or 1.0)
    return mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)


def build(options: DecoderOptions) -> DiffusersDecoder:
    """The autoencoder at `options.location`, or the architecture called `options.name`.

    With random weights they come from a fixed seed; torch's own generator is left as it was.

    Raises `MsbenchError` for steps, scales, a preset or a checkpoint, without `diffusers`, and where there is no such model.
    """
    name, own = options.name, options.own
    refuse_sampling_options(name, options)
    if options.checkpoint is not None:
        which = "its location names its weights" if options.location else "it has random weights only"
        raise MsbenchError(f"decoder {name!r}: {which}; leave checkpoint out for it (got {options.checkpoint})")
    sample = _one_of(options, "posterior", ("mode", "sample")) == "sample"
    tiling = _one_of(options, "tiling", ("false", "true")) == "true"
    diffusers = _package(name, "diffusers")
    if name in _ARCHITECTURES:
        config, folder = _ARCHITECTURES[name], None
    else:
        folder = _folder(options, own.get("revision"))
        config = _config(name, folder)
    called = config.get("_class_name")
    kind: Any = getattr(diffusers, str(called), None)
    if called in _OTHER_RANGE:
        raise MsbenchError(f"decoder {name!r}: a {called} takes images in [0, 1]: wrap it in a file of yours, FILE.py@range=01")
    if not {"encode", "decode", "from_pretrained"} <= {*dir(kind)}:
        raise MsbenchError(
            f"decoder {name!r}: its {_CONFIG} names {called!r}, which is no autoencoder of diffusers {diffusers.__version__}: "
            "name the folder of one, or install another version"
        )
    with torch.device("meta"):
        # Shapes without arithmetic; an interface that does not fit ends here, before weights are read.
        shape = _code(kind.from_config(config), torch.empty(1, 3, _PROBE, _PROBE), sample).shape
    if folder is None or options.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            model, sha256, trained_on = kind.from_config(config).to(options.dtype), None, "random weights"
    else:
        model, sha256 = _load(name, kind, folder, options.dtype)
        trained_on = f"unknown ({options.location})"
    # Architectures are held against networks that are channels-last in half precision; models keep the pixels of `diffusers`.
    as_is = folder is not None or options.dtype == torch.float32
    model.to(options.device, memory_format=torch.preserve_format if as_is else torch.channels_last).eval().requires_grad_(False)
    if _quantises(model):
        model.quantize.float()
    if tiling:
        model.enable_tiling()
    parameters = sum(one.numel() for key, one in model.named_parameters() if not key.startswith(("encoder.", "quant_conv.")))
    channels, steps = None if _quantises(model) else shape[1], 2 if _draws(model) else 1
    sizes = (int(model.config.num_vq_embeddings),) if _quantises(model) else None
    factor, facts = _PROBE // shape[-1], (parameters, sha256, sha256, trained_on)
    spec = DecoderSpec(name, factor, channels, steps, 1, *facts, codebook_sizes=sizes)
    return ArchitectureOnly(model, spec) if folder is None else DiffusersDecoder(model, spec, sample)


def _one_of(options: DecoderOptions, option: str, values: tuple[str, ...]) -> str:
    """The value of one of its own options, the first of `values` by default."""
    value = options.own.get(option, values[0])
    if value not in values:
        raise MsbenchError(f"decoder {options.name!r}: {option} is {' or '.join(values)}, not {value!r}")
    return value


def _package(name: str, package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MsbenchError(f"decoder {name!r} needs {package} ({error}); run: pip install 'msbench[diffusers]'") from error


def _folder(options: DecoderOptions, revision: str | None) -> Path:
    """The local folder of a model, fetched from the hub where the location is a repository's name."""
    name, (where, _, subfolder) = options.name, options.location.partition("#")
    folder = Path(os.path.expanduser(where))
    if folder.is_dir():
        if revision is not None:
            raise MsbenchError(f"decoder {name!r}: {where} is a folder: revision={revision} goes with a repository's name")
        return folder / subfolder
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", where):
        raise MsbenchError(f"decoder {name!r}: there is no folder {where or '(empty)'}, nor is that a repository (OWNER/NAME)")
    files = [f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}-*-of-*.safetensors", f"{_WEIGHTS}.safetensors.index.json", _CONFIG]
    wanted = [f"{subfolder}/{file}" if subfolder else file for file in files]
    hub = _package(name, "huggingface_hub")
    try:
        fetched = hub.snapshot_download(where, revision=revision, allow_patterns=wanted, local_files_only=options.offline)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MsbenchError(f"decoder {name!r}: no folder {where}, and no repository that can be had ({reason})") from error
    return Path(fetched) / subfolder


def _config(name: str, folder: Path) -> Mapping[str, Any]:
    """The content of its config.json."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MsbenchError(f"decoder {name!r}: no {_CONFIG} in {folder}: name its subfolder, as {name}#vae") from error
    except (OSError, ValueError) as error:
        raise MsbenchError(f"decoder {name!r}: {folder / _CONFIG} cannot be read ({error})") from error
    return config if isinstance(config, dict) else {}


def _load(name: str, kind: Any, folder: Path, dtype: torch.dtype) -> tuple[Any, str]:
    """The model with its weights, none missing, and their SHA-256: of the file, or of its parts' in their order."""
    files = sorted(folder.glob(f"{_WEIGHTS}.safetensors")) or sorted(folder.glob(f"{_WEIGHTS}-*-of-*.safetensors"))
    if not files:
        raise MsbenchError(
            f"decoder {name!r}: no {_WEIGHTS}.safetensors in {folder}; pickles (.bin) are not read: convert them once with "
            "diffusers, model.save_pretrained(FOLDER)"
        )
    options = {"use_safetensors": True, "torch_dtype": dtype, "low_cpu_mem_usage": False, "output_loading_info": True}
    with plugin_boundary(f"decoder {name!r}", f"reading {folder} as a {kind.__name__}"):
        model, found = kind.from_pretrained(folder, **options)
    if missing := found["missing_keys"]:
        raise MsbenchError(f"decoder {name!r}: {folder} lacks {len(missing)} tensors, first {missing[0]}: fetch it again")
    hashes = [sha256_file(file) for file in files]
    return model, hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
