"""`msbench` without metric networks and with tiny models, slowed down where it must be caught; a server of forks of it.

As a script it serves: a line of JSON on stdin starts a command in one process or several, or waits for some to end.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
import time
import types
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACE, STEPS = "KILLS_PACE", "KILLS_STEPS"
"""variables: seconds that a batch, a step and a rename take longer; file that gets a line for each image or step done"""
PART_IMAGES = 4
HEAVY = ("pandas", "pyarrow.parquet", "safetensors.torch", "scipy.stats", "torch._dynamo", "torch.distributed", "harness.cli")
HEAVY += ("decoders.training.train", "harness.run.runner", "harness.sweep.sweep")
"""what every command imports"""


def lighten() -> None:
    """Put the light parts in place of the heavy ones."""
    tests = sys.modules["tests"] = types.ModuleType("tests")  # not a package of this name from elsewhere
    tests.__path__ = [str(ROOT / "tests")]
    import decoders.training.train as training
    import harness.speed.run as speed
    from decoders.autoencoder import AutoencoderConfig
    from decoders.denoiser import DenoiserConfig
    from decoders.presets import SizePreset
    from decoders.training import build, trainer
    from harness import distributed, registry
    from harness.cost import latency
    from harness.registry import DecoderEntry
    from harness.run import journal, quality, runner
    from tests.harness.run import odd_decoders
    from tests.harness.run.light import LightSuite

    # Other work on the machine is no fault here: it would leave plots of times out.
    latency.MOST_RUN_DELAY = latency.MOST_STEAL = latency.MOST_SPREAD = math.inf
    pace = float(os.environ.get(PACE, "0"))
    runner.MetricSuite, journal.PART_IMAGES = LightSuite, PART_IMAGES  # type: ignore[misc]
    odd = {"odd-noisy": DecoderEntry("odd-noisy", "", f"{odd_decoders.__name__}:noisy", "odd")}
    built_in = registry.decoder_entries
    registry.decoder_entries = lambda: {**built_in(), **odd}
    tiny = AutoencoderConfig(encoder_widths=(8, 8), encoder_depths=(1, 1), decoder_widths=(8, 8), decoder_depths=(1, 1))
    build.size_preset = lambda name: SizePreset(  # type: ignore[attr-defined]
        tiny, DenoiserConfig(widths=(8, 16, 16), depths=(1, 1, 1), embedding=16, latent_width=8)
    )
    training.Lpips = _lpips()  # type: ignore[attr-defined]
    configured = training.configured
    training.configured = lambda request: (  # type: ignore[attr-defined]
        replace(configured(request), config=replace(configured(request).config, save_every_seconds=4 * pace, log_every=1))
    )
    # What `--processes` starts is this file.
    distributed.__file__ = str(Path(os.environ["KILLS_LIGHT"]) / "harness" / "distributed.py")
    measure, advance, rename = quality.QualityPass._measure, trainer._Run.advance, os.replace

    def slow_measure(self: Any, batch: Any, cache: Any) -> None:
        time.sleep(pace)
        measure(self, batch, cache)
        for example in batch.examples:
            _note(example.key)

    def slow_advance(self: Any, progress: float) -> float:
        time.sleep(pace)
        value = advance(self, progress)
        if self.group.writes:
            _note(str(self.step))
        return value

    def slow_replace(*paths: Any) -> None:
        time.sleep(pace)
        rename(*paths)

    quality.QualityPass._measure = slow_measure  # type: ignore[method-assign]
    trainer._Run.advance = slow_advance  # type: ignore[method-assign]
    os.replace = slow_replace
    speed._Run.memory_of = lambda self, timing: None  # type: ignore[method-assign] # two processes less a setting


def _note(line: str) -> None:
    with open(os.environ[STEPS], "a") as file:
        file.write(f"{line}\n")


def _lpips() -> Any:
    import torch

    class StubLpips(torch.nn.Module):
        @classmethod
        def load(cls, net: str, device: object, offline: bool) -> StubLpips:
            return cls()

        def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (estimate - target).square().mean(dim=(1, 2, 3))

    return StubLpips


def command() -> None:
    """The command, with the arguments of this process."""
    lighten()
    from harness.cli import main

    main()


def _start(arguments: list[str], ranks: int, output: str, variables: dict[str, str]) -> list[int]:
    """Process ids of so many forks that run the command, as torchrun's processes where there are several."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(ranks):
        if pid := os.fork():
            pids.append(pid)
            continue
        code = 70
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(f"{output}.{rank}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ |= variables
            if ranks > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(ranks),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)}
            sys.argv = ["msbench", *arguments]
            command()
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pids


def serve() -> None:
    """Import once what every command needs, then fork."""
    for name in HEAVY:
        import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in asked["wait"]]
        else:
            answer = _start(**asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    serve()
