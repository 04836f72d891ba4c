"""`msbench train-decoder`: the one place where the harness starts a training."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import CountIfAny, Offline, Resume, SideIfAny, chosen, progress_bar, say

if TYPE_CHECKING:
    from harness.data.types import Request


def train_command(
    decoder: Annotated[
        str,
        typer.Argument(
            help="vae, vae-ft, rate-bound, [ms-]direct, [ms-]diffusion, ms-diffusion-cascade, [ms-]onestep, "
            "ms-onestep-cascade; pca-fFcC fits a linear code, as pca-f8c16."
        ),
    ],
    dataset: str = "imagenette",
    data_dir: Path | None = None,
    resolution: SideIfAny = None,
    max_samples: CountIfAny = None,
    preset: str | None = None,
    scales: int | None = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="GROUP.FIELD=VALUE")] = None,
    max_minutes: float | None = None,
    max_pflops: float | None = None,
    max_steps: int | None = None,
    stop_after: int | None = None,
    learning_rate: float = 4e-4,
    warmup: int = 100,
    precision: str = "auto",
    seed: int = 0,
    subset_seed: Annotated[int, typer.Option(min=0)] = 0,
    vae: Path | None = None,
    encoder: str | None = None,
    teacher: Path | None = None,
    start_from: Path | None = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard")] = False,
    output_dir: Path | None = None,
    resume: Resume = False,
    device: str = "cpu",
    offline: Offline = False,
) -> None:
    """Train or distil a decoder; writes a checkpoint with its model card.

    \b
    Examples:
      msbench train-decoder ms-onestep --dataset imagenette --max-minutes 30
      msbench train-decoder vae --dataset folder:my-images --max-steps 1000 --set loss.batch=8
      msbench train-decoder direct --encoder taef2@checkpoint=DIR --max-minutes 30
    """
    given = locals()
    from harness.data.types import Request
    from harness.request.hub import fetch

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
    made |= {
        name: Path(fetch(str(path), offline)[0]) for name in ("vae", "teacher", "start") if (path := {**given, **made}[name])
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
        say(f"try it: msbench run --decoder {decoder} --checkpoint {path}" + f" --scales {scales}" * bool(scales))


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
