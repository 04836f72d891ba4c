"""Training with compiled networks: the same mathematics, the same FLOPs, and a checkpoint like any other."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from decoders.denoiser import Denoiser
from decoders.flow import make_flow
from decoders.training.config import TrainConfig
from decoders.training.data import TrainingImages
from decoders.training.flow_matching import FlowLossConfig, FlowObjective
from decoders.training.train import compile_networks
from decoders.training.trainer import TrainResult, train
from tests.decoders.conftest import StubPerceptual


@pytest.mark.slow
def test_a_compiled_run_trains_the_same_network(
    tiny_denoiser: Callable[[int], Denoiser], latent_pictures: TrainingImages, tmp_path: Path
) -> None:
    config = TrainConfig(max_steps=5, warmup=1, precision="fp32", log_every=1, compile=True)
    loss = FlowLossConfig(batch=2, crop=32, time_sampling="uniform")
    results: list[TrainResult] = []
    networks: list[Denoiser] = []
    for compiled in (False, True):
        network = copy.deepcopy(tiny_denoiser(2)).train().requires_grad_(True)
        if compiled:
            compile_networks(network)
        objective = FlowObjective(network, make_flow("cascade", 2), latent_pictures, loss, StubPerceptual())
        results.append(train(objective, config, tmp_path / str(compiled), torch.device("cpu")))
        networks.append(network)
    assert results[0].pflops == results[1].pflops > 0
    plain, fused = (network.state_dict() for network in networks)
    assert plain.keys() == fused.keys()
    for name, value in plain.items():
        torch.testing.assert_close(fused[name], value, rtol=2e-3, atol=2e-4)
    plain_log, fused_log = (list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("False", "True"))
    assert [row["step"] for row in fused_log] == ["1", "2", "3", "4", "5"]
    losses = [float(row["loss"]) for row in plain_log]
    assert [float(row["loss"]) for row in fused_log] == pytest.approx(losses, rel=1e-3)
