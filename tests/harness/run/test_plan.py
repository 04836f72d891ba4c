"""A dry run: what would be done, what it takes by counts that can be checked, and nothing written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cost.cost import CostProtocol
from harness.errors import MsbenchError
from harness.run import plan
from harness.run.config import RunConfig
from harness.run.plan import RunPlan, plan_run

CONFIG = RunConfig(("ms-onestep", "bicubic"), resolution=64, max_samples=6, noise_seeds=3, cost=None)


@pytest.fixture(scope="module")
def planned() -> RunPlan:
    return plan_run(replace(CONFIG, save_images=Path("never-written")))


def test_it_says_what_would_be_done(planned: RunPlan) -> None:
    assert (planned.dataset, planned.n, planned.resolution) == ("photos", 6, 64)
    assert {"rfid", "kid", "psnr", "lpips"} <= {*planned.metrics}
    assert "dists" not in planned.metrics
    assert [(row.label, row.steps, row.noise_seeds) for row in planned.decoders] == [("ms-onestep", 3, 3), ("bicubic", 0, 1)]
    assert not Path("never-written").exists()


def test_the_parts_add_up(planned: RunPlan) -> None:
    assert planned.seconds > 6 * sum(row.seconds_per_image for row in planned.decoders)
    assert planned.disk_mb == pytest.approx(6 * (3 + 1 + 1) * (8192 + plan._SAMPLE) / 2**20)
    assert 0 < planned.images_mb < 6 * 5 * 64 * 64 * 3 * 1.1 / 2**20
    assert planned.memory_mb is None or planned.memory_mb > 50
    (line, _) = planned.lines()
    assert line.startswith("Estimate from one image a decoder on this machine")
    assert "saved images" in line
    assert "saved images" not in " ".join(replace(planned, images_mb=0.0).lines())


def test_without_the_metrics_weights_it_says_that_they_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object, **extra: object) -> None:
        raise MsbenchError("weights are not here")

    monkeypatch.setattr(plan, "MetricSuite", absent)
    found = plan_run(replace(CONFIG, decoders=("jpeg",)))
    assert not found.metrics_timed
    assert "without the metrics" in found.lines()[0]


@pytest.mark.parametrize(
    ("single", "protocol", "seconds"),
    [
        (1.0, None, 0.0),
        (1.0, CostProtocol(batch_sizes=()), 2.0),
        # 3 decodes; batch 1: 4 + 10 s; batch 8: 10 + 24 s
        (1.0, CostProtocol(), 3.0 + 14.0 + 34.0),
        (0.001, CostProtocol(batch_sizes=(1,)), 0.003 + 0.004 + 0.1),
        (1.0, CostProtocol(decoder_seconds=9.0), 9.0),
        (5.0, CostProtocol(decoder_seconds=9.0), 20.0),
    ],
)
def test_cost_takes_what_its_protocol_allows(single: float, protocol: CostProtocol | None, seconds: float) -> None:
    assert plan._cost_seconds(protocol, single) == pytest.approx(seconds)


@pytest.mark.parametrize(("seconds", "words"), [(3.4, "3 s"), (90.0, "1.5 min"), (7200.0, "2.0 h")])
def test_times_have_a_unit_that_fits(seconds: float, words: str) -> None:
    assert plan._words(seconds) == words


def test_it_refuses_what_a_run_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for change, words in (
        ({"decoders": ("bicubik",)}, "bicubic"),
        ({"device": "gpu"}, "--device gpu"),
        ({"dataset": f"folder:{tmp_path}"}, "cannot be used"),
        ({"dataset": "imagenette", "data_dir": tmp_path / "nowhere"}, "nowhere"),
    ):
        with pytest.raises(MsbenchError, match=words):
            plan_run(replace(CONFIG, **change))
