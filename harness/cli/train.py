"""`msbench train-decoder`: the one place where the harness starts a training."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import DataDir, DatasetName, Device, MaxSamples, Offline, Resolution, chosen, progress_bar, say

if TYPE_CHECKING:
    from harness.data.types import Request


def train_command(
    decoder: Annotated[
        str,
        typer.Argument(
            help="vae, vae-ft, rate-bound, [ms-]direct, [ms-]diffusion, ms-diffusion-cascade, [ms-]onestep; "
            "pca-fFcC fits a linear code, as pca-f8c16."
        ),
    ],
    dataset: DatasetName = "imagenette",
    data_dir: DataDir = None,
    resolution: Resolution = None,
    max_samples: MaxSamples = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Size of the networks: nano (the default), nano-grids, nano-f8c16, nano-f16c16, small or base."),
    ] = None,
    scales: Annotated[int | None, typer.Option(help="Number of scales K. Default: the decoder's own.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="GROUP.FIELD=VALUE", help="Any field of autoencoder, denoiser, loss, perceptual, train."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Wall-clock budget.")] = None,
    max_pflops: Annotated[
        float | None, typer.Option(help="Budget of training compute, 10^15 FLOPs: teacher calls and LPIPS count.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Step budget.")] = None,
    stop_after: Annotated[int | None, typer.Option(help="Leave after this many steps; --resume goes on.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-4,
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 100,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seeds all that is random. Here initial weights and every step's draws.")] = 0,
    subset_seed: Annotated[int, typer.Option(min=0, help="Seeds which images --max-samples takes.")] = 0,
    vae: Annotated[
        Path | None, typer.Option(help="Autoencoder checkpoint that gives the latents; default: the shipped one.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Decoder whose encoder gives the latents: taef2@checkpoint=DIR.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The multi-step teacher. A student's: its checkpoint; default: the shipped one.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Checkpoint whose weights a flow or a control starts from; default: random weights.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Curves for TensorBoard too (extra `train`).")] = False,
    output_dir: Annotated[Path | None, typer.Option(help="Folder to write. Default: runs/train/DECODER.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what lies in --output-dir.")] = False,
    device: Device = "cpu",
    offline: Offline = False,
) -> None:
    """Train or distil a decoder; writes a checkpoint with its model card.

    \b
    Examples:
      msbench train-decoder ms-onestep --dataset imagenette --max-minutes 30
      msbench train-decoder vae --dataset folder:my-images --max-steps 1000 --set train.batch_size=16
      msbench train-decoder direct --encoder taef2@checkpoint=DIR --max-minutes 30
    """
    given = locals()
    from harness.data.types import Request

    data = Request(dataset, data_dir, resolution, max_samples, subset_seed, False, "train", offline)
    if decoder.startswith("pca"):
        _fit_pca(decoder, given, data)
        return
    from decoders.training.config import TrainConfig
    from decoders.training.request import TrainRequest
    from decoders.training.train import run_training
    from harness.run.config import check_device, runs_root

    made = {
        "data": data,
        "output": output_dir or runs_root() / "train" / decoder,
        "settings": tuple(settings or ()),
        "config": TrainConfig(**chosen(TrainConfig, given)),
        "start": start_from,
        "device": check_device(device),
    }
    request = TrainRequest(**chosen(TrainRequest, {**given, **made}))
    with progress_bar() as progress:
        path = run_training(
            request,
            lambda line: say(line, stderr=True),
            lambda step, loss, done: progress(f"step {step}, loss {loss:.4f}", int(1000 * min(done, 1.0)), 1000),
        )
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        say(str(path))
        say(f"try it: msbench run --decoder {decoder} --checkpoint {path}")


_PCA_OPTIONS = ("decoder", "dataset", "data_dir", "resolution", "max_samples", "subset_seed", "output_dir", "offline")


def _fit_pca(name: str, given: dict[str, Any], request: Request) -> None:
    """Fit a linear code to the training images; it has no budget and nothing to set."""
    from baselines.pca import write_pca
    from decoders.training.data import load_training_images
    from harness.cells import FITTED_IMAGES
    from harness.errors import MsbenchError
    from harness.run.config import runs_root

    rate = re.fullmatch(r"pca-f([1-9]\d{0,2})c([1-9]\d{0,5})", name)
    if rate is None:
        raise MsbenchError(f"{name}: say which rate to fit, as pca-f8c16 (cells of 8x8 pixels, 16 numbers each)")
    for option, parameter in inspect.signature(train_command).parameters.items():
        if option not in _PCA_OPTIONS and given[option] != parameter.default:
            raise MsbenchError(f"--{option.replace('_', '-')} has no meaning for {name}: it is fitted, not trained")
    path = (given["output_dir"] or runs_root() / "train" / name) / f"{name}.safetensors"
    if path.exists():
        raise MsbenchError(f"{path} is there already: choose another --output-dir")
    say(f"reading {request.name}", stderr=True)
    data = load_training_images(request)
    facts = {
        "trained_on": f"{data.name} ({len(data.images)} images, {data.images.shape[-1]} px)",
        "fitted_images": min(len(data.images), FITTED_IMAGES),
        "pixels_sha256": data.sha256,
        "command": f"msbench train-decoder {name} --dataset {request.name}",
    }
    write_pca(path, data.images, int(rate[1]), int(rate[2]), facts)
    say(str(path))
    say(f"try it: msbench run --decoder pca --checkpoint {path}")
