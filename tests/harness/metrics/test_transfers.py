"""On a GPU the metrics read decoded images where they lie: only values and features go to the host. By fake tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.metrics import inception, lpips
from harness.metrics.metric import Batch
from harness.metrics.suite import MetricSuite

GPU = torch.device("cuda:0")


class Transfers(TorchDispatchMode):
    """Bytes of tensors that operations brought to another device, by where to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[int]] = {"cpu": [], "cuda": []}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func is torch.ops.aten.copy_.default else args[0]
            if source.device.type != found.device.type:
                self.seen[found.device.type].append(found.numel() * found.itemsize)
        return found


def on_gpu(network: nn.Module) -> nn.Module:
    """The network with fake weights there."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty_like(tensor, device=GPU)
                    tensors[name] = nn.Parameter(moved, requires_grad=False) if tensors is module._parameters else moved
    return network


def counted(call: Any, *args: Any) -> dict[str, list[int]]:
    with Transfers() as transfers:
        call(*args)
    return transfers.seen


@pytest.mark.usefixtures("metric_weights")
def test_only_values_leave_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    network, distance = inception._network(True), lpips.Lpips.load("alex")
    with FakeTensorMode(allow_non_fake_inputs=True):
        monkeypatch.setattr(nn.Module, "to", lambda self, *args, **options: self)  # torch cannot move fake weights
        monkeypatch.setattr(inception, "_network", lambda offline: on_gpu(network))
        monkeypatch.setattr(lpips.Lpips, "load", lambda *args: on_gpu(distance))
        monkeypatch.setattr(Tensor, "numpy", lambda self: np.zeros(self.shape))  # which fakes lack
        suite = MetricSuite(GPU)
        images: Tensor = torch.empty(4, 3, 96, 96, dtype=torch.uint8, device=GPU)
        batch = Batch(images, torch.empty_like(images))
        moved = {"features": counted(suite.inception_features, images)}
        for name in ("psnr", "ssim", "lpips", "spectral"):
            moved[name] = counted(suite.measure, name, batch, suite.prepare(name, batch.references))
    assert moved["features"]["cpu"] == [4 * inception.WIDTH * 4]
    assert all(0 < sum(seen["cpu"]) <= 4 * 5 * 8 for name, seen in moved.items() if name != "features")
    assert all(sum(seen["cuda"]) < 100 for seen in moved.values())
