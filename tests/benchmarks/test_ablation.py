"""Grids of trainings: what is read, what is refused, and that finished work is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation
from benchmarks.ablation import Bench, Training, chosen, read_grid
from decoders.training.build import plan
from decoders.training.request import TrainRequest, configured
from harness.data.types import Request
from harness.errors import MsbenchError, UnknownNameError

GRIDS = sorted(Path(ablation.__file__).parent.glob("*.toml"))


def grid(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_are_laid_under_every_cell(tmp_path: Path) -> None:
    text = (
        '[defaults]\npreset = "small"\nvae = "v"\nseeds = [0, 1]\n'
        '[[cell]]\nname = "v"\ndecoder = "vae"\nvae = "none"\nseeds = [3]\n'
        '[[cell]]\nname = "d"\ndecoder = "direct"\nsettings = ["loss.l1=2"]\n'
    )
    assert read_grid(grid(tmp_path / "g.toml", text)) == [
        Training("v", "vae", "small", seeds=(3,)),
        Training("d", "direct", "small", settings=("loss.l1=2",), vae="v", seeds=(0, 1)),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no"),
        ("[[cell]\n", "not a readable grid"),
        ('[[cell]]\nname = "a"\n', "needs a name and a decoder"),
        ('[[cell]]\nname = "a"\ndecoder = "vae"\nsteeps = [1]\n', "Did you mean 'steps'"),
        ('[[cell]]\nname = "a"\ndecoder = "onestep"\nteacher = "b"\n', "unknown cell before 'a' 'b'"),
        ('[[cell]]\nname = "a"\ndecoder = "vae"\n[[cell]]\nname = "a"\ndecoder = "vae"\n', "two cells are called 'a'"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match=words):
        read_grid(grid(tmp_path / "g.toml", text))


@pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])
def test_the_grids_here_ask_for_trainings_that_exist(path: Path) -> None:
    """Every decoder, preset and setting of a committed grid is known; the budget is stated in every cell."""
    for cell in read_grid(path):
        request = TrainRequest(
            cell.decoder,
            Request("imagenette", None, None, None, 0, False, "train", True),
            Path("nowhere"),
            preset=None if cell.decoder == "vae-ft" else cell.preset,
            scales=cell.scales,
            settings=cell.settings,
        )
        assert plan(configured(request)).loss.batch > 0
        assert any(setting.startswith("train.max_") for setting in cell.settings)


def test_cells_are_chosen_in_the_grid_s_order() -> None:
    cells = [Training("a", "vae"), Training("b", "direct"), Training("c", "direct")]
    assert chosen(cells, None) == cells
    assert chosen(cells, "c, a") == [cells[0], cells[2]]
    with pytest.raises(UnknownNameError, match="unknown cell 'd'"):
        chosen(cells, "a,d")


def test_only_the_seeds_asked_for(tmp_path: Path) -> None:
    cells = [Training("a", "vae", seeds=(0, 1, 2))]
    assert Bench(cells, tmp_path).seeds(cells[0]) == [0, 1, 2]
    assert Bench(cells, tmp_path, only_seeds=(2, 5)).seeds(cells[0]) == [2]


def test_only_the_steps_asked_for(tmp_path: Path) -> None:
    flow, student = Training("f", "diffusion", steps=(4, 50)), Training("s", "onestep")
    bench = Bench([flow, student], tmp_path, only_steps=(4,))
    assert (bench.steps(flow), bench.steps(student)) == ([4], [None])
    assert Bench([flow], tmp_path).steps(flow) == [4, 50]


def test_another_cell_s_checkpoint_is_that_of_the_same_seed_or_of_its_first(tmp_path: Path) -> None:
    bench = Bench([Training("t", "diffusion", seeds=(4, 5))], tmp_path)
    assert bench.checkpoint("t", 5) == tmp_path / "t/5/diffusion.safetensors"
    assert bench.checkpoint("t", 0) == tmp_path / "t/4/diffusion.safetensors"


def test_what_is_trained_is_not_trained_again_and_another_recipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainRequest] = []

    def train(request: TrainRequest, *_: Any) -> None:
        asked.append(request)
        request.output.mkdir(parents=True, exist_ok=True)
        (request.output / f"{request.decoder}.safetensors").touch()

    monkeypatch.setattr(ablation, "run_training", train)
    cells = [
        Training("v", "vae", seeds=(4,)),
        Training("t", "diffusion", vae="v"),
        Training("s", "onestep", vae="v", teacher="t"),
    ]
    bench = Bench(cells, tmp_path)
    for cell in cells * 2:
        bench.train(cell, cell.seeds[0])
    assert [request.decoder for request in asked] == ["vae", "diffusion", "onestep"]
    student = asked[-1]
    assert (student.vae, student.teacher) == (tmp_path / "v/4/vae.safetensors", tmp_path / "t/0/diffusion.safetensors")
    assert (student.config.seed, student.resume) == (0, False)
    changed = Training("v", "vae", settings=("loss.l1=1",), seeds=(4,))
    with pytest.raises(MsbenchError, match="trained for another recipe"):
        Bench([changed], tmp_path).train(changed, 4)
