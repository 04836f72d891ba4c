"""A decoder that ends, hangs or starves its process is a finding; the command's exit codes and its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from harness.check.child import check_apart
from harness.check.conformance import CHECKS, Finding
from harness.cli import app
from harness.request.requests import parse_request
from harness.speed.bench import photo_pixels

PLUGIN = """
import os, sys, time
from msbench import DecoderSpec

class Core:
    def __init__(self, options):
        self.spec = DecoderSpec("core", 1, 3, 1, 1, 0, None, None, "nothing")
    def encode(self, images):
        return images * 1.0
    def decode(self, latents, noise):
        print("words on stdout")
        return latents

class Exits(Core):
    def decode(self, latents, noise):
        os._exit(0)

class Hangs(Core):
    def decode(self, latents, noise):
        time.sleep(1000)

class Interrupts(Core):
    def encode(self, images):
        raise KeyboardInterrupt

def unbuilt(options):
    raise KeyError("no such model")
"""
NAMES = {"t-core": "Core", "t-exits": "Exits", "t-hangs": "Hangs", "t-interrupts": "Interrupts", "t-unbuilt": "unbuilt"}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t_plugin.py").write_text(PLUGIN)
    info = tmp_path / "t_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: t-plugin\nVersion: 1\n")
    points = "".join(f"{name} = t_plugin:{target}\n" for name, target in NAMES.items())
    (info / "entry_points.txt").write_text(f"[msbench.decoders]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))


def apart(name: str, timeout: float = 60.0) -> dict[str, Finding]:
    found = list(check_apart(parse_request(name), torch.device("cpu"), torch.float32, photo_pixels(64), timeout))
    assert [one.name for one in found] == ["build", *(name for name, _, _ in CHECKS)]
    return {one.name: one for one in found}


@pytest.mark.usefixtures("plugin")
def test_a_process_that_dies_is_a_finding() -> None:
    found = apart("t-exits")
    assert found["encode"].passed
    assert found["decode"].passed is False
    assert "died with exit code 0: nothing in a decoder may end the process" in found["decode"].detail
    assert found["shapes"] == Finding("shapes", None, "not tried: needs decode")


@pytest.mark.usefixtures("plugin")
def test_a_decoder_that_hangs_is_stopped() -> None:
    found = apart("t-hangs", timeout=5.0)
    assert found["decode"].detail.startswith("no answer after 5 s: it hangs, or --timeout is too short")


@pytest.mark.usefixtures("plugin")
def test_an_interrupt_of_the_decoders_own_is_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    assert "nothing in a decoder may end the process" in apart("t-interrupts")["encode"].detail
    assert "Traceback" not in capfd.readouterr().err


def test_memory_is_bounded() -> None:
    code = """
import torch
from harness.check import child
from harness.cost.attempt import attempt
child._SHARE = 0.02
child._bound_memory()
print(attempt(torch.empty, 2**32).status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expected = "out of memory" if sys.platform == "linux" else "ok"
    assert done.stdout.strip() == expected, done.stderr


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", "--resolution", "64", *arguments])


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    for place in (tmp_path / "nothere.py", f"{tmp_path / 'nothere.py'}:make"):
        done = run(str(place))
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith(f"msbench: decoder {place}: there is no file {tmp_path / 'nothere.py'}")


@pytest.mark.usefixtures("plugin")
def test_the_command_exits_with_1_where_a_check_fails() -> None:
    done = run("t-unbuilt")
    assert done.exit_code == 1
    assert "FAIL build: decoder t-unbuilt: its factory raised KeyError: 'no such model'" in done.stdout
    assert "–    decode: not tried: needs build" in done.stdout
    assert "t-unbuilt: failed: build" in done.stdout


def test_the_command_prints_one_document() -> None:
    done = run("identity", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["status"] == "complete"
    assert document["decoder"] == "identity"
    assert [set(one) for one in document["checks"]] == [{"name", "passed", "detail"}] * (1 + len(CHECKS))
    assert all(one["passed"] for one in document["checks"])
    assert "ok   decode\n" in done.stderr


@pytest.mark.usefixtures("plugin")
def test_what_a_decoder_prints_is_not_in_the_document(tmp_path: Path) -> None:
    command = ("-m", "msbench", "check", "t-core", "--resolution", "64", "--json")
    path = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["checks"]) == 1 + len(CHECKS)
    assert "words on stdout" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("identiti",), "Did you mean 'identity'"),
        (("identity", "--dtype", "fp8"), "unknown dtype 'fp8'"),
        (("identity", "--device", "tpu"), "--device tpu"),
        (("identity", "--resolution", "8"), "--resolution"),
        (("identity", "--timeout", "nan"), "--timeout"),
    ],
)
def test_bad_requests_exit_with_2(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_decoder_on_a_gpu() -> None:
    assert run("vae", "--device", "cuda", "--dtype", "bf16").exit_code == 0
