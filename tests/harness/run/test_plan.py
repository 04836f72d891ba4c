"""A dry run: what would be done, what it takes by counts that can be checked, and nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder := tmp_path_factory.mktemp("temporary")))
        yield folder


@pytest.fixture(scope="module")
def planned(place: Path) -> RunPlan:
    return plan_run(replace(CONFIG, output_dir=place / "run", save_images=place / "images"))


def test_it_says_what_would_be_done_and_leaves_nothing(planned: RunPlan, place: Path) -> None:
    assert planned.n == 6
    assert [row["label"] for row in planned.rows] == ["ms-onestep", "bicubic"]
    assert all(row["ms_per_image"]["1"] > 0 for row in planned.rows)
    assert planned.rows[0]["gflops"] > 0
    assert not [*place.glob("msbench-*"), *place.glob("run*"), *place.glob("images*")]


def test_the_parts_add_up(planned: RunPlan) -> None:
    milliseconds = [row["ms_per_image"]["1"] for row in planned.rows]
    assert planned.seconds > 6 * (3 * milliseconds[0] + milliseconds[1]) / 1000.0
    assert planned.disk_mb == pytest.approx(6 * (3 + 1 + 1) * (8192 + 200) / 2**20)
    raw = 6 * 5 * 64 * 64 * 3 / 2**20
    assert 0.2 * raw < planned.images_mb < 1.1 * raw
    assert planned.memory_mb is None or planned.memory_mb > 50
    assert "min, memory" in planned.line()


def test_a_whole_set_is_counted_and_images_only_where_they_are_saved(place: Path) -> None:
    found = plan_run(replace(CONFIG, decoders=("bicubic",), max_samples=None, resolution=256))
    assert (found.n, found.images_mb) == (15, 0.0)
    assert "memory unknown" in replace(found, memory_mb=None).line()


@pytest.mark.parametrize(
    ("single", "protocol", "seconds"),
    [
        (1.0, None, 0.0),
        (1.0, CostProtocol(batch_sizes=()), 3.0),
        # 3 decodes; batch 1: 4 + 10 s; batch 8: 10 + 24 s
        (1.0, CostProtocol(), 3.0 + 14.0 + 34.0),
        (0.001, CostProtocol(batch_sizes=(1,)), 0.003 + 0.004 + 0.1),
        (1.0, CostProtocol(decoder_seconds=9.0), 9.0),
        (5.0, CostProtocol(decoder_seconds=9.0), 20.0),
    ],
)
def test_cost_takes_what_its_protocol_allows(single: float, protocol: CostProtocol | None, seconds: float) -> None:
    assert plan._cost_seconds(protocol, single) == pytest.approx(seconds)


def test_it_refuses_what_a_run_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for change, words in (
        ({"decoders": ("bicubik",)}, "bicubic"),
        ({"device": "gpu"}, "--device gpu"),
        ({"dataset": f"folder:{tmp_path}"}, "no usable image"),
        ({"dataset": "imagenette", "data_dir": tmp_path / "nowhere"}, "nowhere"),
    ):
        with pytest.raises(MsbenchError, match=words):
            plan_run(replace(CONFIG, **change))  # type: ignore[arg-type]
