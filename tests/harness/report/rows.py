"""A row of results as the report tests need it."""

from __future__ import annotations

from typing import Any


def result(decoder: str, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "decoder": decoder,
        "dataset": "photos",
        "n": 16,
        "rfid": 60.0,
        "kid": 0.01,
        "psnr": 25.0,
        "ssim": 0.8,
        "lpips": 0.2,
        "ms_per_image": {"1": 50.0, "8": 40.0},
        "gflops": 10.0,
        "parameters": 4_000_000,
        "peak_memory_mb": 100.0,
        "trained_on": "imagenette",
    }
    return base | changes
