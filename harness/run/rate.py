"""The rate of a decoder's code, counted batch by batch in JSON types, so that a run which resumes goes on counting."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from harness.cost.modes import eager_of
from harness.decoder import Budgeted, Coded, Decoder, DecoderSpec
from harness.errors import plugin_boundary
from harness.record.schema import Rate
from harness.run.reconstruct import by_codebook

NOMINAL_BITS = 16
"""of one number of continuous latents"""


def new_count() -> dict[str, Any]:
    """Nothing counted yet."""
    return {"bits": 0.0, "images": 0, "pixels": 0, "kind": "", "usage": [], "over": 0}


def count_code(count: dict[str, Any], decoder: Decoder, latents: Tensor, size: tuple[int, int]) -> None:
    """Add the code of a batch of images of one height and width."""
    spec, coded = decoder.spec, eager_of(decoder)
    if spec.codebook_sizes is not None:
        kind, indices = "tokens", by_codebook(decoder, latents)
        bits = len(latents) * indices.shape[-1] * sum(map(math.log2, spec.codebook_sizes))
        count["usage"] = count["usage"] or [{} for _ in spec.codebook_sizes]
        for used, mine in zip(count["usage"], indices.unbind(1), strict=True):
            for index, times in zip(*np.unique(mine.cpu().numpy(), return_counts=True), strict=True):
                used[str(index)] = used.get(str(index), 0) + int(times)
    elif isinstance(coded, Coded):
        with plugin_boundary(f"decoder {spec.name}", "bits"):
            each = coded.bits(latents)
            over = sum(one > coded.budget_bits(*size) for one in each) if isinstance(coded, Budgeted) else 0
        kind, bits, count["over"] = "files", float(sum(each)), count["over"] + over
    elif latents.is_floating_point() and (spec.latent_channels is not None or latents.ndim < 4):  # [B, 3, H, W] is no code
        kind, bits = "nominal", float(NOMINAL_BITS * latents.numel())
    else:
        return
    count["kind"] = kind
    count["bits"] += bits
    count["images"] += len(latents)
    count["pixels"] += len(latents) * size[0] * size[1]


def merge_counts(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two processes counted of one decoder, as one of them would have."""
    usage = one["usage"] or [{} for _ in other["usage"]]
    pairs = zip(usage, other["usage"] or [{} for _ in usage], strict=True)
    sums = {name: one[name] + other[name] for name in ("bits", "images", "pixels", "over")}
    return {**sums, "kind": one["kind"] or other["kind"], "usage": [dict(Counter(a) + Counter(b)) for a, b in pairs]}


def rate_of(count: dict[str, Any], spec: DecoderSpec) -> Rate | None:
    """What was counted, as a mean over images; None for a decoder without a code."""
    if not count["images"]:
        return None
    used = [np.array(list(one.values()), dtype=np.float64) for one in count["usage"]]
    shares = [one / one.sum() for one in used]
    return Rate(
        bits_per_image=count["bits"] / count["images"],
        bits_per_pixel=count["bits"] / count["pixels"],
        kind=count["kind"],
        codebook_sizes=spec.codebook_sizes or (),
        perplexity=tuple(float(np.exp(-(one * np.log(one)).sum())) for one in shares),
        tokens=int(sum(one.sum() for one in used)),
    )
