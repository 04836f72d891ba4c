"""The sweep: what it measures with which weights, and what it measures again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from decoders.checkpoint import Manifest, read_checkpoint, save_checkpoint, shipped_path
from decoders.denoiser import Denoiser
from decoders.presets import SIZES, denoiser_config
from harness.cli import app
from harness.cost.cost import Cost, CostCell
from harness.errors import MsbenchError, UnknownNameError
from harness.files import folder_lock
from harness.record.record import Record, write_record
from harness.run.config import RunConfig
from harness.sweep import cells as cells_module
from harness.sweep.plan import SweepCell, plan_cells
from harness.sweep.plots import write_plots
from harness.sweep.sweep import run_sweep
from harness.sweep.table import sweep_frame
from tests.harness.records import details, result, run_data
from tests.harness.sweep.sweep_requests import QUICK, request, timed

ROOT = Path(__file__).resolve().parents[3]


class Counter:
    """Stands in for the two measurements: counts them and answers at once; a run leaves its record."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int | None, int | None]] = []
        self.configs: list[RunConfig] = []
        self.costs: list[tuple[str, int, int]] = []
        self.cell = timed(1.0)

    def evaluate(self, config: RunConfig) -> Record:
        self.configs.append(config)
        (asked,) = config.requests()
        name = asked.name
        self.runs.append((name, asked.scales, asked.steps))
        assert config.output_dir is not None
        row = result(name, n=config.max_samples, rfid=10.0, lpips=0.5, intervals={"rfid": (9.0, 11.0)})
        return write_record(config.output_dir, run_data([(row, details())]))

    def measure_cost(self, decoder: Any, *_: object) -> Cost:
        self.costs.append((decoder.spec.name, decoder.spec.scales, decoder.spec.steps))
        return Cost((self.cell,), 1.0, None, 0)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counted = Counter()
    monkeypatch.setattr(cells_module, "evaluate", counted.evaluate)
    monkeypatch.setattr(cells_module, "measure_cost", counted.measure_cost)
    return counted


def planned(*arguments: Any, **changes: Any) -> dict[tuple[str, int, int], SweepCell]:
    return {(cell.decoder, cell.scales, cell.steps): cell for cell in plan_cells(request(*arguments, **changes))}


def test_weights_are_trained_where_they_fit_and_random_elsewhere(tmp_path: Path) -> None:
    cells = planned(tmp_path, scales=(1, 2, 3), steps=(2, 4))
    fits = {key: cell.fit and (cell.fit.model, cell.fit.weights) for key, cell in cells.items()}
    assert fits == {
        ("ms-diffusion", 1, 2): ("diffusion", "trained"),
        ("ms-diffusion", 1, 4): ("diffusion", "trained"),
        ("ms-diffusion", 2, 2): ("ms-diffusion", "random"),
        ("ms-diffusion", 2, 4): ("ms-diffusion", "random"),
        ("ms-diffusion", 3, 2): None,
        ("ms-diffusion", 3, 4): ("ms-diffusion", "trained"),
    }
    assert cells["ms-diffusion", 3, 2].skipped == "2 steps cannot cover 3 scales"
    fit = cells["ms-diffusion", 2, 2].fit
    assert fit is not None
    assert "trained for 3 scales, not 2" in str(fit.reason)
    assert str(ROOT) not in str(fit.reason)


def checkpoint(path: Path, decoder: str, scales: int, seed: int = 0) -> Path:
    """A checkpoint of random weights that says it was trained as `decoder` for K scales."""
    torch.manual_seed(seed)
    config = denoiser_config(SIZES["nano"], scales)
    encoder = read_checkpoint(shipped_path(decoder))[0].encoder_sha256
    flow = read_checkpoint(shipped_path(decoder))[0].flow
    save_checkpoint(path, Denoiser(config), Manifest(decoder, "denoiser", asdict(config), "a test", encoder, flow))
    return path


def test_a_checkpoint_below_the_folder_goes_first(tmp_path: Path) -> None:
    two = checkpoint(tmp_path / "a" / "two.safetensors", "ms-diffusion", 2)
    full = checkpoint(tmp_path / "b" / "diffusion.safetensors", "diffusion", 1)
    checkpoint(tmp_path / "b" / "snapshot.safetensors", "diffusion", 1, seed=1)
    checkpoint(tmp_path / "onestep.safetensors", "onestep", 1)  # fits the network, but is another decoder
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    cells = planned(tmp_path, checkpoint_dir=tmp_path)
    fits = {key: cell.fit.checkpoint for key, cell in cells.items() if cell.fit}
    assert fits == {("ms-diffusion", 1, 1): full, ("ms-diffusion", 1, 2): full, ("ms-diffusion", 2, 2): two}


def test_two_different_checkpoints_for_one_cell_are_refused(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "a" / "ms-diffusion.safetensors", "ms-diffusion", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "same")
    assert planned(tmp_path, checkpoint_dir=tmp_path)["ms-diffusion", 2, 2].fit
    checkpoint(tmp_path / "b" / "ms-diffusion.safetensors", "ms-diffusion", 2, seed=1)
    with pytest.raises(MsbenchError, match=r"a/ms-diffusion.* and .*b/ms-diffusion.* K = 2"):
        planned(tmp_path, checkpoint_dir=tmp_path)
    first.write_bytes(b"damaged")
    with pytest.raises(MsbenchError, match="not a readable safetensors file"):
        planned(tmp_path, checkpoint_dir=tmp_path)


def test_a_checkpoint_of_other_latents_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "ms-diffusion.safetensors", "ms-diffusion", 2)
    config = denoiser_config(SIZES["nano"], 2)
    save_checkpoint(path, Denoiser(config), Manifest("ms-diffusion", "denoiser", asdict(config), "a test", "0" * 64, "pyramid"))
    with pytest.raises(MsbenchError, match="latents of an encoder"):
        planned(tmp_path, checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"decoders": ("vae",), "scales": (2,), "steps": (2,)}, MsbenchError, "--beside"),
        ({"decoders": ("ms-difusion",)}, UnknownNameError, "ms-diffusion"),
        ({"decoders": ()}, MsbenchError, "--decoder"),
        ({"decoders": ("ms-diffusion@steps=4",)}, MsbenchError, "the grid takes decoders by name alone"),
        ({"decoders": ("my_model.py",)}, MsbenchError, "--beside takes files and options"),
        ({"baselines": ("x=vae", "x=jpeg")}, MsbenchError, "names x twice"),
        ({"baselines": ("vea",)}, UnknownNameError, "vae"),
        ({"modes": ("eagre",)}, UnknownNameError, "eager"),
        ({"modes": ()}, MsbenchError, "--mode"),
        ({"steps": ()}, MsbenchError, "--steps"),
        ({"checkpoint_dir": Path("/nowhere")}, MsbenchError, "/nowhere"),
        ({"device": "cudda"}, MsbenchError, "cudda"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    changes: dict[str, Any], error: type[MsbenchError], words: str, tmp_path: Path, counter: Counter
) -> None:
    with pytest.raises(error, match=words):
        run_sweep(request(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []
    assert counter.runs + counter.costs == []


def test_a_second_sweep_measures_nothing(tmp_path: Path, counter: Counter) -> None:
    asked = request(tmp_path, decoders=("ms-diffusion", "ms-diffusion-cascade"), baselines=("bicubic",))
    first = run_sweep(asked)
    # K = 1 is `diffusion` for both decoders, so it is measured once.
    assert counter.runs == [("diffusion", 1, 1), ("diffusion", 1, 2), ("bicubic", None, None)]
    assert [cost[0] for cost in counter.costs] == ["diffusion", "diffusion", "ms-diffusion", "ms-diffusion-cascade", "bicubic"]
    assert first.cells_run == 5
    assert len(first.cells) == 9
    second = run_sweep(asked)
    assert (len(counter.runs), len(counter.costs)) == (3, 5)
    assert second.cells_run == 0
    assert second.cells == first.cells


def test_baselines_have_options_and_labels_and_come_from_files(tmp_path: Path, counter: Counter) -> None:
    model = tmp_path / "my_model.py"
    model.write_text("class M:\n    def encode(self, x): return x[..., ::2, ::2]\n    def decode(self, z): return z\n")
    names = ("vae", "vae@dtype=bf16", "../x=bicubic", str(model))
    asked = request(tmp_path / "out", scales=(1,), steps=(1,), baselines=names)
    cells = [cell.cell for cell in run_sweep(asked).cells if cell.cell.baseline]
    assert [(cell.decoder, cell.scales, cell.steps) for cell in cells] == [
        ("vae", 1, 1),
        ("vae@dtype=bf16", 1, 1),
        ("../x", 1, 0),
        ("my_model", 1, 1),
    ]
    assert [name for name, *_ in counter.runs] == ["diffusion", "vae", "vae", "bicubic", str(model)]
    assert [config.decoders for config in counter.configs[1:]] == [(name,) for name in names]
    assert {path.name for path in tmp_path.iterdir()} == {"my_model.py", "out"}
    assert run_sweep(asked).cells_run == 0
    model.write_text(model.read_text().replace("return z", "return z * 1"))
    assert run_sweep(asked).cells_run == 1
    assert run_sweep(replace(asked, baselines=("vae@dtype=bf16", "../x=bicubic@dtype=bf16"))).cells_run == 1


@pytest.mark.parametrize(
    ("changes", "runs", "costs"),
    [
        ({"cost": replace(QUICK, max_seconds=0.02)}, 0, 3),
        ({"modes": ("eager", "compile")}, 0, 3),
        ({"max_samples": 1}, 2, 2),
        ({"dtype": torch.bfloat16}, 2, 3),
        ({"steps": (1, 2, 3)}, 1, 2),
        ({"cost_only": True}, 0, 2),
    ],
)
def test_only_what_a_change_touches_is_measured_again(
    changes: dict[str, Any], runs: int, costs: int, tmp_path: Path, counter: Counter
) -> None:
    run_sweep(request(tmp_path))
    before = len(counter.runs), len(counter.costs)
    changed = run_sweep(request(tmp_path, **changes))
    assert (len(counter.runs) - before[0], len(counter.costs) - before[1]) == (runs, costs)
    assert changed.cells_run == costs
    assert run_sweep(request(tmp_path)).cells_run == 0  # the old cells are still there


def test_new_weights_are_measured_again(tmp_path: Path, counter: Counter) -> None:
    path = checkpoint(tmp_path / "w" / "ms-diffusion.safetensors", "ms-diffusion", 2)
    asked = request(tmp_path / "out", scales=(2,), steps=(2,), checkpoint_dir=tmp_path / "w")
    assert [run_sweep(asked).cells_run for _ in range(2)] == [1, 0]
    checkpoint(path, "ms-diffusion", 2, seed=1)
    assert run_sweep(asked).cells_run == 1
    assert (len(counter.runs), len(counter.costs)) == (2, 2)


def test_a_cell_that_failed_is_tried_again(tmp_path: Path, counter: Counter) -> None:
    asked = request(tmp_path, scales=(1,), steps=(2,))
    counter.cell = CostCell(1, "failed", None, reason="RuntimeError: bad luck")
    (row,) = sweep_frame(run_sweep(asked)).to_dict("records")
    assert (row["status"], row["reason"], row["rfid"]) == ("failed", "RuntimeError: bad luck", 10.0)
    counter.cell = timed(1.0)
    assert [run_sweep(asked).cells_run for _ in range(2)] == [1, 0]
    assert len(counter.runs) == 1


@pytest.mark.parametrize("damage", ["", "{}", '{"recipe": {}, "cost": {}}'])
def test_a_damaged_cell_is_measured_again(damage: str, tmp_path: Path, counter: Counter) -> None:
    run_sweep(request(tmp_path))
    cell = next((tmp_path / "cells").glob("ms-diffusion-k2*.json"))
    whole = json.loads(cell.read_text())
    cell.write_text(damage)
    assert run_sweep(request(tmp_path)).cells_run == 1
    again = json.loads(cell.read_text())
    assert again["recipe"] == whole["recipe"]


def test_a_run_that_was_finished_before_its_cell_was_written_is_kept(tmp_path: Path, counter: Counter) -> None:
    asked = request(tmp_path, scales=(1,), steps=(2,))
    first = run_sweep(asked)
    next((tmp_path / "cells").glob("*.json")).unlink()
    again = run_sweep(asked)
    assert (len(counter.runs), again.cells_run) == (1, 1)
    assert first.cells[0].figures is not None
    assert again.cells[0].figures is not None
    assert again.cells[0].figures["quality"] == first.cells[0].figures["quality"]


def test_no_memory_for_quality_leaves_the_cost(tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: RunConfig) -> Record:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(cells_module, "evaluate", fails)
    (cell,) = run_sweep(request(tmp_path, scales=(1,), steps=(2,))).cells
    assert cell.figures is not None
    assert cell.figures["quality"] is None
    assert "memory" in cell.figures["quality_reason"]
    assert counter.costs == [("diffusion", 1, 2)]


@pytest.mark.usefixtures("told_quiet")
def test_cost_alone_is_really_measured(tmp_path: Path) -> None:
    sweep = run_sweep(request(tmp_path, cost_only=True, steps=(2,), baselines=("bicubic",), modes=("eager", "cudagraph")))
    everything = sweep_frame(sweep)
    rows, graphs = everything[everything["mode"] == "eager"], everything[everything["mode"] == "cudagraph"]
    assert len(rows) == len(graphs) == 6
    assert (rows["ms_per_image"] > 0).all()
    assert set(graphs["status"]) == {"unsupported"}
    assert all("needs a CUDA device" in reason for reason in graphs["reason"])
    assert graphs["ms_per_image"].isna().all()
    two = rows[(rows["scales"] == 2) & (rows["batch"] == 1)].iloc[0]
    # One step at half the side and one at the full one, against two full ones.
    assert two["counted_speedup"] == pytest.approx(2 / (1 + 1 / 4), rel=0.05)
    assert set(rows["quality_reason"]) == {"quality was not asked for"}
    written, omitted = write_plots(everything, tmp_path)
    assert {path.name for path in written} >= {"speedup-ms-diffusion.svg", "flops-time.png"}
    assert all(path.is_file() for path in written)
    assert [line for line in omitted if "energy" in line]


def test_flops_are_counted_without_a_timing(tmp_path: Path) -> None:
    options = "--decoder ms-onestep --scales 1,2 --steps 2 --cost-only --cost-batch-sizes none --resolution 64 --json"
    done = CliRunner().invoke(app, ["sweep", *options.split(), "--beside=", "--output-dir", str(tmp_path / "s")])
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(tmp_path / "s" / "sweep.csv")
    assert rows["counted_speedup"].tolist() == pytest.approx([1.0, 2 / (1 + 1 / 4)], rel=0.1)
    assert rows["theory_speedup"].tolist() == pytest.approx([1.0, 2 / (1 + 1 / 4)])
    assert rows["ms_per_image"].isna().all()
    wrong = CliRunner().invoke(app, ["sweep", "--cost-batch-sizes", "nothing"])
    assert wrong.exit_code == 2


@pytest.mark.slow
def test_the_command_resumes_and_writes_table_and_plots(tmp_path: Path) -> None:
    def sweep() -> dict[str, Any]:
        options = "--decoder ms-diffusion-cascade --scales 1,2 --steps 1,2 --baselines bicubic --max-samples 3 --resolution 64"
        command = [
            *options.split(),
            "--cost-seconds",
            "0.1",
            "--cost-batch-sizes",
            "1",
            "--output-dir",
            str(tmp_path / "s"),
            "--json",
        ]
        done = subprocess.run(
            [sys.executable, str(ROOT / "msbench.py"), "sweep", *command],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    first, second = sweep(), sweep()
    assert (first["cells_run"], second["cells_run"]) == (4, 0)
    assert first["cells"] == second["cells"]
    by_cell = {(one["scales"], one["steps"]): one for one in first["cells"]}
    assert by_cell[1, 2]["quality"]["n"] == 3
    assert by_cell[1, 2]["quality"]["rfid"] > 0
    assert by_cell[2, 2]["quality"] is None
    assert "trained for 3 scales, not 2" in by_cell[2, 2]["quality_reason"]
    assert by_cell[2, 1]["status"] == "skipped"
    table = pd.read_parquet(tmp_path / "s" / "sweep.parquet")
    assert len(table) == 5
    assert list(pd.read_csv(tmp_path / "s" / "sweep.csv").columns) == list(table.columns)
    assert table.loc[table["scales"].eq(2) & table["steps"].eq(2), "quality"].isna().all()
    assert {Path(path).suffix for path in first["plots"]} == {".svg", ".png"}
    assert all(Path(path).is_file() for path in first["plots"])
    assert len(list((tmp_path / "s" / "cells").glob("*.json"))) == 4


def test_a_folder_has_one_sweep_at_a_time(tmp_path: Path, counter: Counter) -> None:
    with folder_lock(tmp_path), pytest.raises(MsbenchError, match="is being written by process"):
        run_sweep(request(tmp_path))
    assert not counter.costs
