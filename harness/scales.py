"""Speed-up against the number of scales: one flow, N steps in all, K = 1, 2, …; cost needs no trained weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from harness.cost.cost import CostProtocol, measure_cost
from harness.cost.theory import even_split, ideal_speedup
from harness.decoder import DecoderOptions, NoiseSource
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.registry import build_decoder

if TYPE_CHECKING:
    import pandas as pd


def measure_scales(
    decoder: str,
    scales: Sequence[int],
    steps: int,
    resolution: int,
    protocol: CostProtocol,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[str, int, int], None],
) -> pd.DataFrame:
    """Measure a decoder's cost at each number of scales, with random weights.

    Returns:
        One row per (scales, batch): decoder, steps, resolution, ms_per_image, gflops, measured_speedup, counted_speedup and
        ideal_speedup, each speed-up relative to the first number of scales given.

    Raises:
        MsbenchError: the decoder cannot be built without weights, or for that many scales or steps.
    """
    import pandas as pd

    if 1 not in scales:
        raise MsbenchError(f"--scales {','.join(map(str, scales))}: 1 must be among them, speed-ups are relative to it")
    rows = []
    for index, k in enumerate(scales):
        report(f"timing K = {k}", index, len(scales))
        built = build_decoder(decoder, DecoderOptions(device=device, dtype=dtype, steps=steps, scales=k, weights="random"))
        if built.spec.latent_channels is None:
            raise MsbenchError(f"{decoder} has no latent grid; --decoder must name a multi-scale diffusion decoder")
        side = resolution // built.spec.down_factor
        latents = torch.zeros(max(protocol.batch_sizes), built.spec.latent_channels, side, side, device=device)

        def noise(batch: int) -> NoiseSource:
            return SampleNoise.for_samples(0, [str(i) for i in range(batch)], device)

        cost = measure_cost(built, latents, noise, protocol, device)
        for batch, time in cost.ms_per_image.items():
            rows.append(
                {
                    "decoder": decoder,
                    "scales": k,
                    "batch": batch,
                    "steps": steps,
                    "resolution": resolution,
                    "ms_per_image": time,
                    "gflops": cost.gflops,
                    "ideal_speedup": ideal_speedup(even_split(steps, k)),
                }
            )
    report("timing", len(scales), len(scales))
    frame = pd.DataFrame(rows)
    base = frame[frame["scales"] == 1].set_index("batch")
    frame["measured_speedup"] = frame["batch"].map(base["ms_per_image"]) / frame["ms_per_image"]
    frame["counted_speedup"] = frame["batch"].map(base["gflops"]) / frame["gflops"]
    return frame
