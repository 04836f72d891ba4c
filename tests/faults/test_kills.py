"""Commands killed or told to end at seeded moments, then started again: they end as an undisturbed one does.

| command       | processes | what is ended            | SIGKILL may lose                             | SIGTERM may lose   |
|---------------|-----------|--------------------------|----------------------------------------------|--------------------|
| run           | 1, 2, 3   | all, one, or the starter | images since each process's last part        | nothing            |
| train-decoder | 1, 2      | all, one                 | steps since the last saved state             | nothing            |
| sweep         | 1         | it                       | images of the cell at work, since its part   | nothing            |
| speed         | 1         | it                       | all, for it writes once, at its end          | the setting at work |

Signals come from outside: once a drawn number of parts lies in the folder and a drawn share of a batch's time has passed, or
then in the midst of writing a file. A part is of 4 images, and a state of about 4 steps. All that stays behind is the
folder of compiled code that a killed `speed` has in TMPDIR.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import torch

from harness.files import sha256_file
from harness.record.record import read_record
from tests.faults import light_command
from tests.faults.light_command import PACE, PART_IMAGES, STEPS
from tests.harness.run.conftest import make_images
from tests.harness.run.test_resume import same

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KILL, TERM = signal.SIGKILL, signal.SIGTERM
SLOW = 0.15
"""seconds a batch, a step and a rename take longer in a command that is to be caught"""
LIMIT = 120.0
IMAGES, STEPS_WANTED = 24, 14
TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}(\.\w+)?")
"""names that files have until they are whole"""


@dataclass(frozen=True)
class Case:
    """Where and how a command is ended, and how it is started again."""

    command: str
    processes: int
    whom: Literal["all", "one", "starter", "worker"]
    """processes, the last one, what `--processes` started or one of those it starts"""
    signal: signal.Signals
    codes: list[int]
    """exit codes by rank"""
    then: int = 1
    """processes that go on"""
    writing: bool = False
    """in the midst of writing a file"""

    def __str__(self) -> str:
        moment = "-writing" * self.writing
        return f"{self.command}-{self.processes}-{self.whom}-{self.signal.name}{moment}-then-{self.then}"


CASES = [
    Case("run", 1, "all", KILL, [-KILL]),
    Case("run", 1, "all", KILL, [-KILL], 2, writing=True),
    Case("run", 1, "all", TERM, [75], 3),
    Case("run", 2, "one", KILL, [2, -KILL], 3),
    Case("run", 2, "all", KILL, [-KILL] * 2, writing=True),
    Case("run", 3, "one", TERM, [75] * 3, 2),
    Case("run", 3, "all", TERM, [75] * 3),
    Case("run", 2, "starter", TERM, [75]),
    Case("run", 2, "starter", KILL, [-KILL]),
    Case("run", 2, "worker", KILL, [2]),
    Case("train-decoder", 1, "all", KILL, [-KILL]),
    Case("train-decoder", 1, "all", KILL, [-KILL], writing=True),
    Case("train-decoder", 1, "all", TERM, [75]),
    Case("train-decoder", 2, "one", KILL, [2, -KILL], 2),
    Case("train-decoder", 2, "one", TERM, [75] * 2, 2),
    Case("sweep", 1, "all", KILL, [-KILL]),
    Case("sweep", 1, "all", KILL, [-KILL], writing=True),
    Case("sweep", 1, "all", TERM, [75]),
    Case("speed", 1, "all", KILL, [-KILL]),
    Case("speed", 1, "all", TERM, [75]),
]
FIRST = {"run": (1, 4), "train-decoder": (5, 9), "sweep": (1, 2), "speed": (2, 2)}
"""bounds of the number that is drawn, as `reached` counts"""


@dataclass
class Started:
    """A command that runs in one or several processes."""

    pids: list[int]
    output: Path
    steps: Path
    wait: Callable[[list[int]], list[int]]
    below: list[int] = field(default_factory=list)
    """processes that it had started when its signal came"""

    def ended(self) -> list[int]:
        """Exit codes, once all have ended."""
        return self.wait(self.pids)

    def stderr(self) -> str:
        return "".join(path.read_text() for path in sorted(self.output.parent.glob(f"{self.output.name}.*.stderr")))

    def stdout(self) -> str:
        return Path(f"{self.output}.0.stdout").read_text()

    def done(self) -> list[str]:
        """Keys of images measured or numbers of steps made."""
        return self.steps.read_text().split() if self.steps.exists() else []


@dataclass
class Lab:
    """Starts commands, on a few small images, in a folder of its own."""

    root: Path
    server: subprocess.Popen[str]
    count: int = 0
    whole: dict[str, Path] = field(default_factory=dict)

    def ask(self, question: dict[str, Any]) -> list[int]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        answer: list[int] = json.loads(self.server.stdout.readline())
        return answer

    def start(self, arguments: Sequence[object], ranks: int = 1, pace: float = 0.0) -> Started:
        self.count += 1
        output, steps = self.root / f"out-{self.count}", self.root / f"steps-{self.count}"
        variables = {PACE: str(pace), STEPS: str(steps)}
        asked = {"arguments": [*map(str, arguments)], "ranks": ranks, "output": str(output), "variables": variables}
        return Started(self.ask(asked), output, steps, lambda pids: self.ask({"wait": pids}))

    def undisturbed(self, command: str, ranks: int = 1) -> Path:
        """The folder of one that nothing befell."""
        name = f"{command}-{ranks}"
        if name not in self.whole:
            folder = self.root / f"whole-{name}"
            started = self.start(arguments(self, command, folder), ranks)
            assert started.ended() == [0] * ranks, started.stderr()
            self.whole[name] = folder
        return self.whole[name]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("kills")
    make_images(root / "images", IMAGES)
    (root / "tmp").mkdir()
    (root / "light").mkdir()
    paths = [str(Path(light_command.__file__).parent), str(ROOT)]
    (root / "light" / "msbench.py").write_text(
        f"import sys\nsys.path[:0] = {paths!r}\nfrom light_command import command\ncommand()\n"
    )
    variables = {"OMP_NUM_THREADS": "1", "MSBENCH_FEATURES": "off", "MSBENCH_CACHE": str(root / "cache")}
    variables |= {"TMPDIR": str(root / "tmp"), "KILLS_LIGHT": str(root / "light")}
    server = subprocess.Popen(
        [sys.executable, light_command.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    with server:
        yield Lab(root, server)
        assert server.stdin is not None
        server.stdin.close()


def arguments(lab: Lab, command: str, folder: Path) -> list[object]:
    """What the command is asked for."""
    images = ["--dataset", f"folder:{lab.root / 'images'}", "--offline"]
    given: dict[str, list[object]] = {
        "run": [*images, "--decoder", "odd-noisy,jpeg", "--resolution", 32, "--batch-size", 2, "--noise-seeds", 2, "--no-cost"],
        "train-decoder": [
            "vae",
            *images,
            "--resolution",
            32,
            "--max-steps",
            STEPS_WANTED,
            "--warmup",
            2,
            "--precision",
            "fp32",
        ],
        "sweep": [*images, "--decoder", "ms-diffusion", "--scales", 1, "--steps", 2, "--beside", "jpeg,bicubic,odd-noisy"],
        "speed": ["--decoder", "bicubic", "--cost-batch-sizes", "1,2", "--cores", 1, "--resolution", 64, "--cost-seconds", 0.2],
    }
    given["train-decoder"] += ["--set", "loss.batch=2"]
    given["sweep"] += ["--resolution", 32, "--max-samples", 12, "--cost-batch-sizes", "1", "--cost-seconds", 0.01]
    given["speed"] += ["--wait-seconds", 0]
    return [command, *given[command], "--output-dir", folder]


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def caught(lab: Lab, case: Case, folder: Path, draw: random.Random) -> Started:
    """A command that its signal has met on the way."""
    asked = arguments(lab, case.command, folder)
    processes = ["--processes", case.processes] if case.whom in ("starter", "worker") else []
    started = lab.start([*asked, *processes], 1 if processes else case.processes, SLOW)
    least, share, until = draw.randint(*FIRST[case.command]), draw.random(), time.monotonic() + LIMIT
    while not reached(case.command, folder, started, least):
        assert time.monotonic() < until, started.stderr()
        time.sleep(0.005)
    time.sleep(share * SLOW)
    while case.writing and not being_written(folder):
        assert time.monotonic() < until, "nothing was being written any more"
        time.sleep(0.005)
    hit = {"all": started.pids, "starter": started.pids, "one": started.pids[-1:]}.get(case.whom) or children(started.pids[0])[
        -1:
    ]
    started.below = [one for pid in started.pids for one in children(pid)]
    for pid in hit:
        os.kill(pid, case.signal)
    return started


def reached(command: str, folder: Path, started: Started, least: int) -> bool:
    """Whether so many parts of it are there: of a run, cells of a sweep and a part of the next, steps, settings of speed."""
    parts = sum(path.match("features/part-*.safetensors") for path in found(folder))
    if command == "train-decoder":
        return (folder / "state.pt").exists() and len(started.done()) >= least
    if command == "sweep":
        return parts > 0 and sum(1 for _ in folder.glob("cells/*.json")) >= least
    return (started.stderr().count("timing batch") if command == "speed" else parts) >= least


def being_written(folder: Path) -> bool:
    return any(TEMPORARY.fullmatch(path.name) for path in found(folder))


def found(folder: Path) -> Iterator[Path]:
    """Files below it at work: a folder may go meanwhile."""
    return (Path(place) / name for place, _, names in os.walk(folder) for name in names)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def temporaries(lab: Lab) -> list[str]:
    return sorted(path.name for path in (lab.root / "tmp").iterdir() if not path.name.startswith("torchinductor"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_ends_as_if_nothing_had_befallen_it(lab: Lab, case: Case) -> None:
    draw, folder = random.Random(str(case)), lab.root / f"run-{lab.count}"
    started = caught(lab, case, folder, draw)
    codes, told = started.ended(), started.stderr()
    assert codes == case.codes, told
    assert "Traceback" not in told
    assert "unexpected" not in told
    left, kept = temporaries(lab), {path: path.read_bytes() for path in folder.glob("cells/*.json")}
    saved = torch.load(folder / "state.pt")["step"] if case.command == "train-decoder" else 0
    whole = lab.undisturbed(case.command, case.processes if case.command == "train-decoder" else 1)
    if case.command == "speed" and case.signal == TERM:
        document = json.loads((folder / "speed.json").read_text())
        assert document["status"] == "incomplete"
        assert {cell["batch"] for cell in document["cells"]} == {1}
        assert (files(folder), left) == (files(whole), [])
        return
    resume = ["--resume"] if case.command in ("run", "train-decoder") else []
    until = time.monotonic() + LIMIT
    while True:
        again = lab.start([*arguments(lab, case.command, folder), *resume], case.then)
        ended, said = again.ended(), again.stderr()
        if "is being written by" not in said or case.whom != "starter" or time.monotonic() > until:
            break  # else what a killed starter started is still at work
    assert ended == [0] * case.then, said
    assert "Traceback" not in again.stderr()
    assert files(folder) == files(whole)
    assert left == [] or (case.command, case.signal) == ("speed", KILL)  # its folder for compiled code stays
    shutil.rmtree(lab.root / "tmp")
    (lab.root / "tmp").mkdir()
    lost, most = len(started.done()) + len(again.done()), PART_IMAGES * case.processes
    if case.command == "run":
        same(read_record(folder), read_record(whole))
        lost -= IMAGES
    elif case.command == "train-decoder":
        assert again.done()[0] == str(saved + 1)
        lost, most = lost - STEPS_WANTED, 5
        assert sha256_file(folder / "vae.safetensors") == sha256_file(whole / "vae.safetensors")
        losses = [pd.read_csv(one / "log.csv")[["step", "loss", "grad_norm"]] for one in (folder, whole)]
        pd.testing.assert_frame_equal(*losses)
    elif case.command == "sweep":
        lost -= 4 * IMAGES // 2
        assert all(path.read_bytes() == content for path, content in kept.items())
        assert f"{4 - len(kept)} of 4 cells measured now" in again.stdout()
        cells = [
            [json.loads(path.read_text())["quality"] for path in sorted(one.glob("cells/*.json"))] for one in (folder, whole)
        ]
        assert cells[0] == cells[1]
    else:
        rows = [
            [(cell["decoder"], cell["batch"], cell["scope"], cell["status"]) for cell in json.loads(text)["cells"]]
            for text in ((one / "speed.json").read_text() for one in (folder, whole))
        ]
        assert rows[0] == rows[1]
    while any(map(alive, started.below)):
        assert time.monotonic() < until + LIMIT, "what it had started is still there"
        time.sleep(0.05)
    assert "Traceback" not in started.stderr()
    print(f"{case}: ended with {codes}, lost {lost if case.command != 'speed' else 'all'}, at most {most}, left {left}")
    assert lost <= (0 if case.signal == TERM else most)
