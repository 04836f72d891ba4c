"""Train every cell of a grid, measure each checkpoint, and write one table: `python benchmarks/ablation.py GRID.toml`.

    python benchmarks/ablation.py benchmarks/architecture.toml --data-dir DIR --work-dir runs/architecture \\
        --output results/architecture.csv

A grid is a TOML file: `[defaults]` and one `[[cell]]` per training, each with `name`, `decoder`, and as wanted `preset`,
`scales`, `settings` (as `--set` takes them), `teacher` and `vae` (names of other cells), `seeds`, `steps` (network
calls to measure with; none = the decoder's own); "none" undoes a default. A checkpoint that a cell refers to is the one of the
same training seed, or of the first seed where that cell was not trained with it. Finished trainings and measurements are kept:
a killed grid goes on where it stopped, and a cell whose recipe has changed since is refused. The table says of every row what
it was trained with and for how long.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.plumbing import options, run_script, write_csv
from decoders.training.request import TrainRequest
from decoders.training.train import run_training
from harness.cost.cost import CostProtocol
from harness.data.types import Request
from harness.errors import MsbenchError, UnknownNameError
from harness.files import write_text
from harness.record.record import Record, read_record
from harness.run.config import RunConfig, check_device
from harness.run.runner import evaluate

METRICS = ("rfid", "kid", "psnr", "ssim", "lpips", "spectral")


@dataclass(frozen=True, slots=True)
class Training:
    """One `[[cell]]` of a grid: a training, repeated under each of its seeds."""

    name: str
    """how rows and other cells call it"""
    decoder: str
    """registry name"""
    preset: str = "nano"
    """size of the networks"""
    scales: int | None = None
    """K; None = the decoder's own"""
    settings: tuple[str, ...] = ()
    """as `train-decoder --set` takes them"""
    teacher: str | None = None
    """cell whose checkpoint a student starts from; None = the shipped teacher"""
    vae: str | None = None
    """cell that gives the latents; None = the shipped autoencoder"""
    seeds: tuple[int, ...] = (0,)
    """training seeds"""
    steps: tuple[int, ...] = ()
    """network calls to measure with; none = the decoder's own"""


def read_grid(path: Path) -> list[Training]:
    """The cells of a grid file, in its order.

    Raises:
        MsbenchError: not a grid, or a cell refers to one that does not stand before it.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise MsbenchError(f"{path}: not a readable grid ({error})") from error
    known = [entry.name for entry in fields(Training)]
    cells: list[Training] = []
    for table in document.get("cell", []):
        row = {key: value for key, value in {**document.get("defaults", {}), **table}.items() if value != "none"}
        if unknown := row.keys() - set(known):
            raise UnknownNameError(f"field of a cell in {path}", min(unknown), known)
        if not {"name", "decoder"} <= row.keys():
            raise MsbenchError(f"{path}: every cell needs a name and a decoder; {table} lacks one")
        cell = Training(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})
        before = [other.name for other in cells]
        if cell.name in before:
            raise MsbenchError(f"{path}: two cells are called {cell.name!r}")
        for reference in filter(None, (cell.teacher, cell.vae)):
            if reference not in before:
                raise UnknownNameError(f"cell before {cell.name!r}", reference, before)
        cells.append(cell)
    if not cells:
        raise MsbenchError(f"{path} has no [[cell]]")
    return cells


@dataclass(frozen=True, slots=True)
class Bench:
    """Trains and measures cells below a folder."""

    cells: Sequence[Training]
    """of the grid"""
    work: Path
    """trainings and measurements, kept for resuming"""
    data_dir: Path | None = None
    """where Imagenette lies"""
    samples: int | None = None
    """size of the stratified validation subset; None = all"""
    only_seeds: Sequence[int] | None = None
    """of a cell's training seeds; None = all"""
    only_steps: Sequence[int] | None = None
    """of a cell's numbers of steps; None = all"""
    device: str = "cpu"
    """where to train and measure"""

    def seeds(self, cell: Training) -> list[int]:
        """The training seeds of a cell that are wanted."""
        return [seed for seed in cell.seeds if self.only_seeds is None or seed in self.only_seeds]

    def steps(self, cell: Training) -> list[int | None]:
        """The numbers of steps a cell is measured with that are wanted; None = the decoder's own."""
        return [steps for steps in cell.steps or [None] if not steps or not self.only_steps or steps in self.only_steps]

    def checkpoint(self, name: str, seed: int) -> Path:
        """The weights of the cell called `name` under a seed, or under its first where it has no such one."""
        cell = next(cell for cell in self.cells if cell.name == name)
        return self.work / name / str(seed if seed in cell.seeds else cell.seeds[0]) / f"{cell.decoder}.safetensors"

    def train(self, cell: Training, seed: int) -> None:
        """Train one cell unless it is finished; a run that was cut off goes on."""
        path = self.checkpoint(cell.name, seed)
        asked = json.dumps([cell.decoder, cell.preset, cell.scales, cell.settings, cell.teacher, cell.vae])
        note = path.parent / "cell.json"
        if note.is_file() and note.read_text(encoding="utf-8") != asked:
            raise MsbenchError(f"{path.parent} was trained for another recipe of {cell.name!r}: remove it or rename the cell")
        if path.is_file():
            return
        write_text(note, asked)
        request = TrainRequest(
            cell.decoder,
            Request("imagenette", self.data_dir, None, None, 0, False, "train", True),
            path.parent,
            preset=None if cell.decoder == "vae-ft" else cell.preset,  # it is the size of the autoencoder it tunes
            scales=cell.scales,
            settings=cell.settings,
            vae=self.checkpoint(cell.vae, seed) if cell.vae else None,
            teacher=self.checkpoint(cell.teacher, seed) if cell.teacher else None,
            device=check_device(self.device),
            resume=(path.parent / "state.pt").is_file(),
            offline=True,
        )
        request = replace(request, config=replace(request.config, seed=seed))
        run_training(request, lambda line: print(f"{cell.name}/{seed}: {line}", file=sys.stderr, flush=True), None)

    def measure(self, cell: Training, seed: int, steps: int | None) -> Record:
        """Imagenette val through the protocol; read again where it has been measured."""
        path = self.checkpoint(cell.name, seed)
        folder = path.parent / f"val-{steps or 'own'}"
        if (folder / "record.json").is_file():
            return read_record(folder)
        config = RunConfig(
            decoders=(cell.decoder,),
            dataset="imagenette",
            data_dir=self.data_dir,
            max_samples=self.samples,
            checkpoint=path,
            steps=steps,
            scales=cell.scales,
            output_dir=folder,
            cost=CostProtocol(batch_sizes=(1,), max_seconds=1.0),
            device=self.device,
            offline=True,
        )
        return evaluate(config)

    def rows(self, cell: Training) -> list[dict[str, Any]]:
        """One row per training seed and number of steps."""
        found = []
        for seed in self.seeds(cell):
            self.train(cell, seed)
            card = json.loads(self.checkpoint(cell.name, seed).with_suffix(".json").read_text(encoding="utf-8"))
            found += [row(cell, seed, card, self.measure(cell, seed, steps)) for steps in self.steps(cell)]
        return found


def row(cell: Training, seed: int, card: dict[str, Any], record: Record) -> dict[str, Any]:
    """What the table says of one measured checkpoint."""
    result: dict[str, Any] = record.results[0]
    spec = record.data.decoders[cell.decoder].spec
    objective = card["objective"]
    line: dict[str, Any] = {
        "cell": cell.name,
        "decoder": cell.decoder,
        "preset": cell.preset,
        "flow": card["flow"] or "",
        "scales": spec.scales,
        "nfe": spec.steps,
        "objective": objective.get("objective", objective["name"].removesuffix("Objective").lower()),
        "settings": " ".join(cell.settings),
        "seed": seed,
        "trained_on": spec.trained_on,
        "perceptual_network": card["perceptual_network"],
        "training_steps": card["steps"],
        "training_pflops": card.get("throughput", {}).get("training_pflops"),  # cards of older trainings do not say
        "training_minutes": round(card["seconds"] / 60, 1),
        "parameters": card["parameters"],
        "gflops": result["gflops"],
        "n": result["n"],
    }
    for metric in METRICS:
        low, high = result["intervals"].get(metric, (None, None))
        line |= {metric: result.get(metric), f"{metric}_low": low, f"{metric}_high": high}
    return line | {"weights_sha256": spec.weights_sha256}


def chosen(cells: Sequence[Training], names: str | None) -> list[Training]:
    """The cells called `names` ("a,b"), all where None, in the grid's order; raises `UnknownNameError`."""
    known = [cell.name for cell in cells]
    wanted = known if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise UnknownNameError("cell", name, known)
    return [cell for cell in cells if cell.name in wanted]


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--data-dir", type=Path, help="where Imagenette lies")
    parser.add_argument("--work-dir", type=Path, required=True, help="trainings and measurements, kept for resuming")
    parser.add_argument("--max-samples", type=int, help="size of the stratified validation subset; default: all")
    parser.add_argument("--cells", help="only these, separated by commas; what they refer to must be trained already")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these of a cell's training seeds")
    parser.add_argument("--steps", type=int, nargs="+", help="only these of a cell's numbers of steps")
    parser.add_argument("--device", default="cpu", help="where to train and measure: cpu, cuda or cuda:N")
    parser.add_argument("--output", type=Path, required=True, help="the CSV")
    given = parser.parse_args()
    cells = read_grid(given.grid)
    check_device(given.device)  # before anything is read
    part = given.data_dir, given.max_samples, given.seeds, given.steps, given.device
    bench = Bench(cells, given.work_dir, *part)
    rows: list[dict[str, Any]] = []
    for cell in chosen(cells, given.cells):
        rows += bench.rows(cell)
        write_csv(rows, given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
