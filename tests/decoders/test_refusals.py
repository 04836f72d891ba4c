"""What `train-decoder` refuses, in one line and before any image is read, and what it never replaces."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from decoders.checkpoint import load_autoencoder
from decoders.presets import size_preset
from decoders.training import build as build_module
from decoders.training import train as train_module
from decoders.training.config import TrainConfig
from decoders.training.request import TrainRequest
from decoders.training.state import STATE
from decoders.training.train import run_training
from harness.cli import app
from harness.errors import MsbenchError
from harness.files import LOCK, folder_lock, sha256_file
from tests.decoders.test_train import TINY, Lab, StubLpips, lab, refused, silent  # noqa: F401 (a fixture)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()} if folder.is_dir() else {}


def stopped(request: TrainRequest) -> TrainRequest:
    """Leaves after the first of its steps."""
    return replace(request, config=replace(request.config, stop_after=1))


def again(request: TrainRequest, steps: int | None = None) -> TrainRequest:
    """Resumed, with another budget."""
    return replace(request, config=replace(request.config, max_steps=steps or request.config.max_steps), resume=True)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lab, str], tuple[int, str]]:
    """The command line, from words to exit code and stderr; images are never read."""

    def opened(*_: object) -> None:
        raise AssertionError("images were opened")

    def run(lab: Lab, words: str) -> tuple[int, str]:  # noqa: F811
        monkeypatch.setattr(train_module, "load_training_images", opened)
        monkeypatch.setattr(build_module, "size_preset", size_preset)
        place = f"--dataset folder:{lab.pictures} --output-dir {lab.output}/new"
        result = CliRunner().invoke(app, ["train-decoder", *words.split(), *place.split()])
        return result.exit_code, result.stderr

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("vae --max-minutes nan", "max_minutes"),
        ("vae --max-minutes 0", "max_minutes"),
        ("vae --max-pflops nan", "max_pflops"),
        ("vae --max-steps 1 --learning-rate nan", "learning_rate"),
        ("vae --max-steps 1 --learning-rate -1", "learning_rate"),
        ("vae --max-steps 1 --learning-rate 1e20", "learning_rate"),
        ("vae --max-steps 1 --seed 99999999999999999999999", "seed"),
        ("vae --max-steps 1 --precision fp8", "precision"),
        ("vae --max-steps 1 --preset huge", "preset 'huge'"),
        ("vae --max-steps 1 --set train.ema_power=nan", "train.ema_power=nan"),
        ("vae --max-steps 1 --set train.log_every=0", "train.log_every=0"),
        ("vae --max-steps 1 --set train.beta2=1", "train.beta2=1"),
        ("vae --max-steps 1 --set train.clip_norm=0", "train.clip_norm=0"),
        ("vae --max-steps 1 --set train.snapshot=-1", "train.snapshot=-1"),
        ("vae --max-steps 1 --set loss.batch=-1", "loss.batch=-1"),
        ("vae --max-steps 1 --set loss.lpips=-1", "loss.lpips=-1"),
        ("vae --max-steps 1 --set autoencoder.patch=0", "autoencoder.patch=0"),
        ("vae --max-steps 1 --set autoencoder.encoder_widths=8,8", "make no network"),
        ("vae --max-steps 1 --set perceptual.share=0", "perceptual.share=0"),
        ("vae --max-steps 1 --set adversary.weight=0.2", "unknown group of settings 'adversary'"),
        ("vae --max-steps 1 --resume", "holds no saved state"),
        ("vae --max-steps 1 --vae FILE", "--vae FILE has no meaning for vae"),
        ("vae --max-steps 1 --teacher FILE", "--teacher FILE has no meaning for vae"),
        ("vae --max-steps 1 --start-from FILE", "--start-from FILE has no meaning for vae"),
        ("vae --max-steps 1 --scales 2", "--scales 2 has no meaning for vae"),
        ("vae-ft --max-steps 1 --preset small", "--preset small has no meaning for vae-ft"),
        ("vae-ft --max-steps 1 --set loss.freeze_encoder=false", "vae-ft keeps its encoder"),
        ("vae-ft --max-steps 1 --set autoencoder.patch=4", "unknown group of settings 'autoencoder'"),
        ("vae-ft --max-steps 1 --set loss.l1=0 --set loss.lpips=0", "nothing would be learned"),
        ("diffusion --max-steps 1 --teacher FILE", "--teacher FILE has no meaning for diffusion"),
        ("direct --max-steps 1 --teacher FILE", "--teacher FILE has no meaning for direct"),
        ("onestep --max-steps 1 --start-from FILE", "--start-from FILE has no meaning for onestep"),
        ("onestep --max-steps 1 --set loss.objective=self", "loss.objective=self: input should be 'paired', 'direct' or"),
        ("onestep --max-steps 1 --set denoiser.embedding=7", "multiple of 2"),
        ("ms-diffusion --max-steps 1 --scales 99", "denoiser.scales=99"),
        ("diffusion --max-steps 1 --set loss.time_floor=0", "loss.time_floor=0"),
        ("diffusion --max-steps 1 --vae /nowhere.safetensors", "no checkpoint at /nowhere.safetensors"),
    ],
)
def test_bad_options_end_with_one_line_before_any_image_is_read(
    lab: Lab,  # noqa: F811
    main: Callable[[Lab, str], tuple[int, str]],
    words: str,
    said: str,
) -> None:
    code, stderr = main(lab, words)
    assert code == 2, stderr
    assert said in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert not lab.output.exists()


def test_the_folder_cannot_be_written_to(lab: Lab, main: Callable[[Lab, str], tuple[int, str]]) -> None:  # noqa: F811
    lab.output.write_text("a file")
    code, stderr = main(lab, "vae --max-steps 1")
    assert (code, len(stderr.strip().splitlines())) == (2, 1)
    assert f"cannot write to {lab.output}/new" in stderr


def test_finished_and_unfinished_work_is_never_replaced(lab: Lab) -> None:  # noqa: F811
    request = lab.request("vae", steps=3)
    run_training(stopped(request), silent, None)
    target = request.output / "vae.safetensors"
    run_training(again(request), silent, None)
    before = contents(request.output)
    with pytest.raises(MsbenchError, match=rf"{target} is there already: go on with --resume, or choose another") as error:
        run_training(request, refused, None)
    assert "\n" not in str(error.value)
    said: list[str] = []
    assert run_training(again(request), said.append, None) == target
    assert said[-1].startswith(f"{target} is finished: its budget is used up after 3 steps")
    assert {**contents(request.output), STATE: ""} == {**before, STATE: ""}
    # A state without a checkpoint is work too.
    target.unlink()
    with pytest.raises(MsbenchError, match=rf"{STATE} is there already"):
        run_training(request, refused, None)
    # A checkpoint that was not written any more is made from the state.
    run_training(again(request), silent, None)
    assert sha256_file(target) == before[target.name]
    run_training(again(request, steps=4), silent, None)
    assert sha256_file(target) != before[target.name]
    # So is the checkpoint of a run that was killed between its last state and its checkpoint, where an earlier one lies.
    longer = contents(request.output)
    card = target.with_suffix(".json")
    card.write_text(card.read_text().replace('"steps": 4', '"steps": 3'))
    target.write_bytes(b"that of three steps")
    run_training(again(request, steps=4), silent, None)
    assert sha256_file(target) == longer[target.name]


@pytest.mark.parametrize("error", [RuntimeError("[enforce fail at inline_container.cc:672] ."), OSError(errno.ENOSPC, "full")])
def test_a_full_disk_is_one_line_and_keeps_what_was_saved(
    lab: Lab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def full(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    request = lab.request("vae")
    monkeypatch.setattr(torch, "save", full)
    words = rf"{request.output} is full: make room, then --resume$"
    fresh = replace(request, config=replace(request.config, log_every=99))
    with pytest.raises(MsbenchError, match=words):
        run_training(fresh, silent, None)
    assert not request.output.exists()
    monkeypatch.undo()
    monkeypatch.setattr(train_module, "Lpips", StubLpips)
    monkeypatch.setattr(build_module, "size_preset", lambda name: TINY)
    run_training(stopped(request), silent, None)
    before = contents(request.output)[STATE]
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MsbenchError, match=words):
        run_training(again(request), silent, None)
    assert contents(request.output)[STATE] == before
    assert not [path for path in request.output.iterdir() if path.name.startswith(".")]


def test_too_few_images_leave_no_folder(lab: Lab) -> None:  # noqa: F811
    request = lab.request("vae")
    few = replace(request, data=replace(request.data, max_samples=3))
    with pytest.raises(MsbenchError, match="3 usable images"):
        run_training(few, silent, None)
    assert not few.output.exists()
    few.output.mkdir(parents=True)
    with pytest.raises(MsbenchError, match="3 usable images"):
        run_training(few, silent, None)
    assert not [*few.output.iterdir()]  # one that was there before stays


def test_two_trainings_do_not_share_a_folder(lab: Lab) -> None:  # noqa: F811
    request = lab.request("vae")
    with folder_lock(request.output), pytest.raises(MsbenchError, match=f"is being written by process {os.getpid()}"):
        run_training(request, refused, None)
    (request.output / LOCK).write_text(f"{socket.gethostname()} {os.getppid()}")  # nobody holds it
    run_training(request, silent, None)
    assert not (request.output / LOCK).exists()


def test_another_encoder_is_not_replaced_by_the_one_that_is_kept(lab: Lab) -> None:  # noqa: F811
    vae = run_training(lab.request("vae"), silent, None)
    other = run_training(replace(lab.request("vae", steps=3), output=lab.output / "other"), silent, None)
    (other.parent / STATE).unlink()
    with pytest.raises(MsbenchError, match="is another encoder than --vae"):
        run_training(replace(lab.request("direct"), vae=vae, output=other.parent), refused, None)
    assert load_autoencoder(other)[1].training_seed == 0


@pytest.mark.parametrize("kind", ["text", "cut", "list", "step", "negative", "seconds", "window", "meter", "module", "extra"])
def test_a_damaged_state_is_one_line(lab: Lab, kind: str) -> None:  # noqa: F811
    run_training(lab.request("vae"), silent, None)
    request = lab.request("diffusion", steps=3)
    run_training(stopped(request), silent, None)
    path = request.output / STATE
    state = torch.load(path, weights_only=True)
    if kind == "text":
        path.write_text("not a state")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    else:
        damage = {"step": "many", "seconds": math.nan, "window": ["x"], "meter": None, "module": 5, "extra": {}}
        wrong = {"step": -3} if kind == "negative" else {kind: damage.get(kind)}
        torch.save([1, 2] if kind == "list" else state | wrong, path)
    with pytest.raises(MsbenchError, match=re.escape(str(path))) as error:
        run_training(again(request), silent, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["hello", "step,loss\nx,1\n1,1\n", "step,loss\n1,x\n", "a,b\n1,2\n", "step,loss\n1\n2,3\n", "\0"]
)
def test_a_damaged_log_is_one_line(lab: Lab, text: str) -> None:  # noqa: F811
    request = lab.request("vae", steps=3)
    run_training(stopped(request), silent, None)
    log = request.output / "log.csv"
    log.write_bytes(text.encode() if text != "\0" else b"step,loss\n\x00,\xff\n")
    with pytest.raises(MsbenchError, match=r"log\.csv: not the log of a training") as error:
        run_training(again(request), silent, None)
    assert "\n" not in str(error.value)
    log.unlink()
    run_training(again(request), silent, None)
    assert [row["step"] for row in csv.DictReader(log.open())] == ["2", "3"]


def test_weights_that_are_not_finite_are_never_saved(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Whatever makes the average NaN: here the decay itself."""
    monkeypatch.setattr("decoders.training.trainer.ema_decay", lambda step, power: float("nan"))
    request = lab.request("vae")
    with pytest.raises(MsbenchError, match=r"vae\.safetensors is not written: .* is not finite"):
        run_training(request, silent, None)
    assert not list(request.output.glob("vae*"))


def test_crops_too_small_for_lpips_or_for_the_latents_are_named(lab: Lab) -> None:  # noqa: F811
    small = replace(lab.request("vae"), settings=("perceptual.crop=8",))
    with pytest.raises(MsbenchError, match="LPIPS vgg needs crops of 16 px at every scale, not 8"):
        run_training(small, silent, None)
    with pytest.raises(MsbenchError, match="crops of 4 px of images of 64 px are too small"):
        run_training(replace(small, settings=("loss.crop=4",), output=lab.output / "other"), silent, None)


def recipe(path: Path) -> str:
    return str(json.loads(path.with_suffix(".json").read_text())["recipe_sha256"])


def test_the_recipe_leaves_out_the_training_seed_and_names_the_subset(lab: Lab) -> None:  # noqa: F811
    """`--seed` changes weights and draws alone; which images are taken is `--subset-seed`'s."""
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for seed, subset in ((0, 0), (1, 0), (0, 1)):
        request = lab.request("vae")
        data = replace(request.data, max_samples=16, seed=subset)
        config = replace(request.config, seed=seed)
        path = run_training(replace(request, data=data, config=config, output=lab.output / f"{seed}{subset}"), silent, None)
        assert load_autoencoder(path)[1].training_seed == seed
        found[seed, subset] = recipe(path), sha256_file(path)
    assert found[0, 0][0] == found[1, 0][0] != found[0, 1][0]
    assert len({weights for _, weights in found.values()}) == 3


def test_the_command_keeps_the_two_seeds_apart(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    asked: list[TrainRequest] = []
    monkeypatch.setattr(train_module, "run_training", lambda request, *_: asked.append(request) or request.output)
    for words in ("--seed 5", "--subset-seed 7"):
        result = CliRunner().invoke(app, ["train-decoder", "vae", "--max-steps", "1", *words.split()])
        assert result.exit_code == 0, result.stderr
    assert [(one.config.seed, one.data.seed) for one in asked] == [(5, 0), (0, 7)]


@pytest.mark.parametrize(
    "change",
    [
        ("train.learning_rate=1e-3",),
        ("train.ema_power=6",),
        ("loss.l1=2",),
        ("perceptual.share=0.5",),
        ("autoencoder.encoder_depths=2,1",),
    ],
)
def test_other_settings_are_another_recipe(lab: Lab, change: tuple[str, ...]) -> None:  # noqa: F811
    request = lab.request("vae", steps=1)
    first = run_training(request, silent, None)
    second = run_training(replace(request, settings=change, output=lab.output / "other"), silent, None)
    assert recipe(first) != recipe(second)


def test_the_number_of_batches_a_step_is_part_of_the_recipe(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    hashes: list[str] = []
    original = train_module.recipe_sha256

    def twice(*arguments: Any) -> str:
        hashes.extend(original(*arguments[:4], world) for world in (1, 2))
        double = replace(arguments[0], config=replace(arguments[0].config, accumulate=2))
        hashes.append(original(double, *arguments[1:4], 1))
        return original(*arguments)

    monkeypatch.setattr(train_module, "recipe_sha256", twice)
    run_training(replace(lab.request("vae"), config=TrainConfig(max_steps=1, precision="fp32")), silent, None)
    assert hashes[0] != hashes[1] == hashes[2]


def test_the_command_to_try_names_the_scales_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of other scales than its decoder's own is refused without."""
    monkeypatch.setattr(train_module, "run_training", lambda *_: Path("x.safetensors"))
    for words, end in ((["--scales", "2"], "--checkpoint x.safetensors --scales 2\n"), ([], "--checkpoint x.safetensors\n")):
        assert CliRunner().invoke(app, ["train-decoder", "ms-diffusion", *words]).stdout.endswith(end)
