"""Checkpoints: fp16 safetensors that carry their own configuration, with a model card beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.denoiser import Denoiser, DenoiserConfig
from decoders.flow import FlowName
from decoders.settings import Positive, first_problem
from harness.errors import MsbenchError
from harness.files import sha256_file, write_bytes

FORMAT = "msbench-checkpoint-1"
SHIPPED = Path(__file__).parent / "checkpoints"
ModuleT = TypeVar("ModuleT", bound=nn.Module)
ConfigT = TypeVar("ConfigT")


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class NamedLatents:
    """Latents of another decoder's encoder; a denoiser reads them normalised, channel by channel."""

    encoder: str
    """`NAME[@option=value]…` of that decoder"""
    mean: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(max_length=2**14)]
    """of each channel over the training images"""
    std: Annotated[tuple[Positive, ...], Field(max_length=2**14)]
    """standard deviation of the same"""

    def moments(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, float32 [C, 1, 1]."""
        mean, std = (torch.tensor(one, device=device).view(-1, 1, 1) for one in (self.mean, self.std))
        return mean, std


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint says of itself, in the file's metadata."""

    decoder: str
    """registry name it was trained as"""
    kind: Literal["autoencoder", "denoiser"]
    """"autoencoder" or "denoiser"""
    config: dict[str, Any]
    """fields of AutoencoderConfig or DenoiserConfig"""
    trained_on: str
    """training data"""
    encoder_sha256: str | None
    """the encoder whose latents a denoiser was trained on, an autoencoder's file; None for the autoencoder itself"""
    flow: FlowName | None = None
    """flow name of a denoiser"""
    training_seed: int | None = None
    """seed of the training; None in files from before it was kept"""
    recipe_sha256: str | None = None
    """hash of all that training was told but the seed; None as above"""
    latents: NamedLatents | None = None
    """where they are another decoder's; None = of an autoencoder of ours, which normalises them itself"""


def shipped_path(decoder: str) -> Path:
    """Where this project ships the weights of `decoder`."""
    return SHIPPED / f"{decoder}.safetensors"


def save_checkpoint(path: Path, module: nn.Module, manifest: Manifest) -> str:
    """Write `module` as fp16 safetensors, atomically; returns the file's SHA-256, the same for the same content.

    Raises:
        MsbenchError: a weight is NaN, infinite or too large for fp16; nothing is written then.
    """
    tensors = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in module.state_dict().items()}
    if bad := _not_finite(tensors):
        raise MsbenchError(f"{path} is not written: {bad} is not finite in fp16; train with a lower learning rate")
    metadata = {"format": FORMAT, "manifest": json.dumps(asdict(manifest), sort_keys=True)}
    write_bytes(path, _canonical(save(tensors, metadata)))
    return sha256_file(path)


def _canonical(data: bytes) -> bytes:
    """The safetensors file with its header's keys sorted: the library writes metadata in random order."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format aligns tensors to 8 bytes
    return len(header).to_bytes(8, "little") + header + data[start:]


def read_checkpoint(path: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Manifest and fp32 tensors of a checkpoint.

    Raises:
        MsbenchError: no such file, not safetensors, not written by this version of msbench, or weights that are not finite.
    """
    if not path.is_file():
        raise MsbenchError(
            f"no checkpoint at {path}: give --checkpoint FILE.safetensors or train one with `msbench train-decoder`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise MsbenchError(f"{path} is not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise MsbenchError(f"{path} was not written by msbench: its metadata has no format {FORMAT!r}")
    manifest = _read(Manifest, metadata.get("manifest", ""), f"{path}: its manifest")
    if bad := _not_finite(tensors):
        raise MsbenchError(f"{path}: {bad} has values that are not finite floating-point numbers; the file is damaged")
    return manifest, {name: tensor.float() for name, tensor in tensors.items()}


def _read(kind: type[ConfigT], text: str, what: str) -> ConfigT:
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise MsbenchError(
            f"{what} cannot be read ({first_problem(error)}); the file is damaged or of another version"
        ) from error


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that is not all finite floating-point numbers."""
    finite = (name for name, tensor in tensors.items() if not (tensor.is_floating_point() and tensor.isfinite().all()))
    return next(finite, None)


def load_autoencoder(path: Path) -> tuple[Autoencoder, Manifest]:
    """The autoencoder of a checkpoint, in eval mode, frozen."""
    return _load(path, "autoencoder", AutoencoderConfig, Autoencoder)


def load_denoiser(path: Path) -> tuple[Denoiser, Manifest]:
    """The denoiser of a checkpoint, in eval mode, frozen."""
    return _load(path, "denoiser", DenoiserConfig, Denoiser)


def _load(path: Path, kind: str, shape: type[ConfigT], network: Callable[[ConfigT], ModuleT]) -> tuple[ModuleT, Manifest]:
    manifest, tensors = read_checkpoint(path)
    if manifest.kind != kind:
        needed = "an autoencoder" if kind == "autoencoder" else f"a {kind}"
        raise MsbenchError(f"{path} holds the {manifest.kind} of {manifest.decoder!r}, {needed} is needed here")
    config = _read(shape, json.dumps(manifest.config), f"{path}: its architecture")
    try:
        # Initial weights are overwritten at once: nothing is drawn, so the caller's random state stays as it is.
        with torch.device("meta"):
            module = network(config)
        module.load_state_dict(tensors, assign=True)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise MsbenchError(
            f"{path}: its tensors do not fit the architecture it states; the file is damaged or of another version"
        ) from error
    return module.eval().requires_grad_(False), manifest


def lineage_of(path: Path, sha256: str) -> dict[str, Any]:
    """What the card beside a checkpoint says of its training, by the names of `DecoderSpec`; empty where none does."""
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(card, dict) or card.get("sha256") != sha256:
        return {}
    objective, throughput = (card[key] if isinstance(card.get(key), dict) else {} for key in ("objective", "throughput"))
    start = card.get("start_pflops") if {"start_sha256", "teacher_sha256"} & card.keys() else 0.0
    texts = {"teacher_sha256": card.get("teacher_sha256"), "objective": objective.get("objective")}
    numbers = {"training_pflops": throughput.get("training_pflops"), "start_pflops": start}
    known = {key: value for key, value in texts.items() if isinstance(value, str)}
    return known | {key: value for key, value in numbers.items() if isinstance(value, float)}
