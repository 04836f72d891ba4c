"""Where a diffusion decoder's time goes: noise, projection of the latents, and each scale's start, network and path.

    python benchmarks/decode_parts.py [--decoder NAMES] [--mode eager,compile] [--dtype fp32,bf16] [--batch 1,8] [--output FILE]

Each part is called alone, on what a decode hands it, in turns with the others; times are medians. A scale's *network* is one
call of the denoiser, *path* its Euler step less that call, *start* what begins the scale less its noise. *whole* is a decode,
and *rest* what no part accounts for. Differences are negative where fusing gains, or below the scatter. `at_full_speed_ms` is
what the counted FLOPs of a part would take at the rate of the finest scale's network.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plumbing import options, run_script, write_csv
from decoders.models import DiffusionDecoder
from decoders.sampling import Parts, begin, integrate
from harness.cost.latency import latency_of, timed_call
from harness.cost.load import LoadMeter
from harness.cost.modes import compile_settings, in_mode, parse_mode
from harness.decoder import parse_dtype
from harness.environment import cpu_model, keep_freed_memory
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.request.requests import parse_requests, split_list
from harness.speed.bench import photo_pixels
from harness.speed.protocol import parse_counts

Call = Callable[[], object]
CPU = torch.device("cpu")


def _as_it_is(function: Any) -> Any:
    return function


def recorded(decoder: DiffusionDecoder, decode: Callable[[], Tensor]) -> dict[str, list[tuple[Any, ...]]]:
    """Arguments of every call of a part during one decode: 'project', 'begin', 'integrate'."""
    seen: dict[str, list[tuple[Any, ...]]] = {"project": [], "begin": [], "integrate": []}

    def keep(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            seen[function.__name__].append(arguments)
            return function(*arguments)

        return call

    decoder.parts = Parts(keep(decoder.denoiser.project), keep(begin), keep(integrate))
    try:
        decode()
    finally:
        decoder.parts = None
    return seen


def calls_of(decoder: DiffusionDecoder, latents: Tensor, noise: SampleNoise, compiler: Callable[[Any], Any]) -> dict[str, Call]:
    """Each part as a call without arguments, by name: first of a scale's, in the order of a decode."""
    seen = recorded(decoder, lambda: decoder.decode(latents, noise))
    project, start, step, network = (compiler(part) for part in (decoder.denoiser.project, begin, integrate, decoder.denoiser))
    normal = compiler(lambda keys, shape, draw: SampleNoise(keys).normal(shape, draw))
    calls: dict[str, Call] = {"projection": partial(project, *seen["project"][0])}
    for arguments in seen["begin"]:
        _, k, previous, _ = arguments
        side = previous.shape[-1] * (2 if k else 1)
        calls[f"noise {k}"] = partial(normal, noise.keys, (3, side, side), k)
        calls[f"begin {k}"] = partial(start, *arguments)
        one = next(other for other in seen["integrate"] if other[4] == k)
        _, _, x, condition, _, time, _, dtype = one
        calls[f"network {k}"] = partial(network, x.to(dtype), condition, k, time, torch.zeros_like(time))
        calls[f"integrate {k}"] = partial(step, *one)
    return calls


def in_turns(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call, everybody once a round, after three rounds of warming up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for count in range(rounds + 3):
        for name, call in calls.items():
            took = 1e3 * timed_call(call, CPU)
            if count >= 3:
                times[name].append(took)
    return {name: median(found) for name, found in times.items()}


def parts_of(ms: dict[str, float], steps: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    """(part, milliseconds of a decode) from the times of single calls."""
    found = {"projection": ms["projection"], "noise": 0.0}
    for k, count in enumerate(steps):
        found["noise"] += ms[f"noise {k}"]
        found[f"scale {k} start"] = ms[f"begin {k}"] - ms[f"noise {k}"]
        found[f"scale {k} network"] = count * ms[f"network {k}"]
        found[f"scale {k} path"] = count * (ms[f"integrate {k}"] - ms[f"network {k}"])
    yield from found.items()
    yield "rest", ms["whole"] - sum(found.values())
    yield "whole", ms["whole"]


def measure(request: Any, mode: str, dtype: str, batch: int, rounds: int, pixels: Tensor) -> list[dict[str, Any]]:
    """Rows of one setting.

    Raises:
        MsbenchError: no diffusion decoder.
    """
    decoder = request.build(CPU, parse_dtype(dtype), resolution=pixels.shape[-1])
    if not isinstance(decoder, DiffusionDecoder):
        raise MsbenchError(f"--decoder {request.label} has no parts: name a diffusion decoder")
    latents = decoder.encode(pixels.float() / 127.5 - 1.0)
    latents = latents[torch.arange(batch) % len(latents)]
    noise = SampleNoise.for_samples(0, [str(index) for index in range(batch)])
    with torch.inference_mode():
        counted = calls_of(decoder, latents, noise, _as_it_is)
        gflops = {}
        for name in ("projection", *(f"network {k}" for k in range(len(decoder.steps)))):
            with FlopCounterMode(display=False) as counter:
                counted[name]()
            gflops[name] = counter.get_total_flops() / 1e9
        chosen = in_mode(decoder, parse_mode(mode), CPU)
        with compile_settings(CPU):
            calls = counted if mode == "eager" else calls_of(decoder, latents, noise, partial(torch.compile, dynamic=False))
            calls["whole"] = lambda: chosen.decode(latents, noise)
            meter = LoadMeter()
            ms = in_turns(calls, rounds)
    if line := latency_of([value / 1e3 for value in ms.values()], 3, True, meter.load()).disturbance():
        print(f"{mode} {dtype} batch {batch}: {line}", file=sys.stderr)
    work = {"projection": gflops["projection"]}
    work |= {f"scale {k} network": count * gflops[f"network {k}"] for k, count in enumerate(decoder.steps)}
    rate = work[last := f"scale {len(decoder.steps) - 1} network"] / dict(parts_of(ms, decoder.steps))[last]
    work["whole"] = sum(work.values())
    setting = {"decoder": request.label, "mode": mode, "dtype": dtype, "batch": batch}
    machine = {"cpu": cpu_model(), "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    rows = []
    for part, took in parts_of(ms, decoder.steps):
        counted_gflops = work.get(part, 0.0)
        figures = {"ms": took, "share": took / ms["whole"], "gflops": counted_gflops, "at_full_speed_ms": counted_gflops / rate}
        rows.append({**setting, "part": part, **figures, **machine})
    return rows


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--decoder", default="ms-onestep")
    parser.add_argument("--mode", default="eager,compile")
    parser.add_argument("--dtype", default="fp32,bf16")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("results/decode-parts.csv"))
    given = parser.parse_args()
    pixels, rows = photo_pixels(given.resolution), []
    # What a setting leaves behind slows the next.
    fresh: dict[str, Any] = {"max_workers": 1, "max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("spawn")}
    with ProcessPoolExecutor(**fresh, initializer=keep_freed_memory) as processes:
        for request, dtype, batch, mode in itertools.product(
            parse_requests(split_list(given.decoder)),
            split_list(given.dtype),
            parse_counts("--batch", given.batch, "max", 4096, "images per call"),
            split_list(given.mode),
        ):
            found = processes.submit(measure, request, mode, dtype, int(batch), given.rounds, pixels).result()
            rows += found
            for row in found:
                print(*(f"{row[name]:.4g}" if isinstance(row[name], float) else row[name] for name in list(row)[:8]))
    write_csv(rows, given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
