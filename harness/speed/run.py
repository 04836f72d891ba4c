"""A run of `msbench speed`: processes started, settings gone through, cells filled.

Nothing a decoder does ends it, but one that cannot be built as asked for ends it before anything is timed.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.cost.attempt import Outcome
from harness.cost.load import MOST_BUSY, allowed_cpus, others_busy
from harness.cost.roofline import Ceilings
from harness.errors import MsbenchError
from harness.interrupt import Terminated
from harness.request.requests import DecoderRequest
from harness.speed.bench import Bench
from harness.speed.cells import Fastest, NoiseFloor, SpeedRow, fastest, noise_floor, speed_row
from harness.speed.client import Client
from harness.speed.messages import Facts, Job, Memory
from harness.speed.protocol import SCOPES, Cores, Setting, SpeedProtocol
from harness.speed.turns import TimedCalls, Workers, time_in_turns, time_ratio
from harness.stopwatch import Progress

AGAIN = " (again)"
"""marks the second process of the first decoder, whose times give the noise floor"""
SKIPPED = "--budget-seconds was used up before this cell"


Sample = tuple[str, str, str, str, str, int, str | None, int, bool, float]
SAMPLE_COLUMNS = ("decoder", "batch", "mode", "dtype", "scope", "resolution", "cores", "turn", "final", "ms")
"""of a timed call: decoder (the second process marked), its setting, its turn, whether it is of `fastest`, and its time"""


@dataclass(slots=True)
class Results:
    """What a run gathers."""

    cells: list[SpeedRow] = field(default_factory=list)
    """in the order measured"""
    noise_floor: list[NoiseFloor] = field(default_factory=list)
    """one per setting, scope, dtype and number of cores that was timed in turns"""
    fastest: list[Fastest] = field(default_factory=list)
    """everybody in their own fastest mode and dtype, one table per resolution, number of cores and batch"""
    samples: list[Sample] = field(default_factory=list)
    """every timed call"""
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    """the device's limits, one per dtype and number of cores"""
    notes: list[str] = field(default_factory=list)
    """what went wrong beside the cells, and what was waited for, one line each"""
    ended: bool = False
    """SIGTERM came before everything was measured"""


def measure_speed(contestants: Sequence[DecoderRequest], device: str, protocol: SpeedProtocol, report: Progress) -> Results:
    """Measure every cell.

    Args:
        contestants: at least one; the others are held against the first.
        device: cpu, cuda or cuda:N.
        protocol: what and how.
        report: told of progress.

    Raises:
        MsbenchError: a decoder cannot be built the way it was asked for, or names a dtype of its own beside several; nothing
            has been timed then.
    """
    if own := [one.label for one in contestants if one.dtype and len(protocol.dtypes) > 1]:
        raise MsbenchError(f"--decoder {own[0]} names its dtype: give one --dtype for the others, not {len(protocol.dtypes)}")
    with tempfile.TemporaryDirectory(prefix="msbench-speed-") as folder:
        run = _Run(tuple(contestants), device, protocol, Path(folder), report)
        try:
            run.go()
        except Terminated:
            run.results.ended = True
            run.results.notes.append("told to end (SIGTERM): the cells after the last one were not measured")
    return run.results


class _Run:
    """The state of one run."""

    def __init__(
        self, contestants: tuple[DecoderRequest, ...], device: str, protocol: SpeedProtocol, folder: Path, report: Progress
    ) -> None:
        self.contestants, self.device, self.protocol, self.folder, self.report = contestants, device, protocol, folder, report
        self.results = Results()
        self.on_gpu = device.startswith("cuda")
        self.first = contestants[0].label
        self.deadline = None if protocol.budget_seconds is None else time.monotonic() + protocol.budget_seconds
        self.facts: dict[tuple[str, str, int], Facts | None] = {}
        self.patience = protocol.wait_seconds  # what is left of it
        self.place = 0, 1  # how many settings are done, and of how many

    def over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def go(self) -> None:
        settings = self.protocol.settings(self.device)
        for _, group in itertools.groupby(enumerate(settings), lambda one: (one[1].cores, one[1].dtype)):
            with ExitStack() as stack:
                workers: Workers | None = None
                for done, setting in group:
                    self.place = done, len(settings)
                    if (why := self.why_not(setting)) is not None:
                        for one, scope in itertools.product(self.contestants, SCOPES):
                            self.results.cells.append(speed_row(TimedCalls(one.label, self.own(one, setting), why), scope))
                    else:
                        workers = workers or self.start_workers(setting, stack)
                        self.time(setting, workers)
        for table in fastest(self.results.cells, self.first):
            again = not table.side_by_side and table.rows[0].batch != "max" and not self.over()
            self.place = len(settings), len(settings) + 1
            self.results.fastest.append(self.final(table) if again else table)
        self.report("timing", len(settings), len(settings))

    def own(self, one: DecoderRequest, setting: Setting) -> Setting:
        """The setting as one of them runs it, in a dtype of its own where it names one."""
        return replace(setting, dtype=one.dtype or setting.dtype)

    def why_not(self, setting: Setting) -> Outcome | None:
        """What becomes of a setting that is not timed."""
        if setting.mode == "cudagraph" and not self.on_gpu:
            return Outcome("unsupported", "mode cudagraph needs a CUDA device")
        if setting.batch == "max" and not self.on_gpu:
            reason = "the largest batch is sought on GPUs only: a CPU shares its memory with everything else"
            return Outcome("unsupported", reason)
        return Outcome("skipped_budget", SKIPPED) if self.over() else None

    def wait(self, where: str) -> None:
        """Until other processes leave the CPUs alone, or the time for that or for everything is up; a wait is noted."""
        begin, waited, busy = time.monotonic(), 0.0, 0.0
        while self.patience > waited and not self.over() and (busy := others_busy()) > MOST_BUSY:
            waited = time.monotonic() - begin
            self.report(f"waiting for a quiet machine, others keep {busy:.1f} CPUs busy", *self.place)
        if waited:
            self.patience -= waited
            now = "stayed busy" if busy > MOST_BUSY else "became quiet"
            self.results.notes.append(f"{where}: waited {waited:.1f} s for other processes, the machine {now}")

    def timed(self, where: str, workers: Workers, settings: Mapping[str, Setting]) -> dict[str, TimedCalls]:
        """Everybody in turns; where other work disturbed somebody and time for it is left, the better of two tries."""
        for client in workers.clients.values():
            client.ask(Bench.release)  # who was started just now is busy until it answers
        self.wait(where)
        self.report(f"timing {where}", *self.place)
        found = time_in_turns(workers, settings, self.protocol, self.over)
        marked = [label for label, one in found.items() if one.outcome.status == "ok" and not one.clean]
        left, begin = self.patience, time.monotonic()
        if marked:
            self.wait(where)
        if not marked or self.patience <= 0 or self.over():
            return found
        again = time_in_turns(workers, settings, self.protocol, self.over)
        self.patience = left - (time.monotonic() - begin)
        better = sum(one.clean for one in again.values()) > sum(one.clean for one in found.values())
        kept = f"disturbed {', '.join(marked)}: the {'second' if better else 'first'} times are kept"
        self.results.notes.append(f"{where}: timed once more, since other work {kept}")
        return again if better else found

    def final(self, best: Fastest) -> Fastest:
        """Everybody in their own fastest mode and dtype once more, in the same turns; `best` itself where one of them fails."""
        settings = {row.decoder: row.setting for row in best.rows}
        where = f"everybody's fastest: batch {best.rows[0].batch}, {best.rows[0].resolution} px"
        with ExitStack() as stack:
            clients = {label: self.started(label, setting, stack) for label, setting in settings.items()}
            timings = self.timed(where, Workers(clients, self.on_gpu), settings)
        self.keep(timings.values(), final=True)
        failed = [timing for timing in timings.values() if timing.outcome.status != "ok"]
        if failed:
            reason = f"{failed[0].label}: {failed[0].outcome.reason}"
            self.results.notes.append(f"{where}: not timed in the same turns: {reason}")
            return best
        return best.timed_again(timings, self.first)

    def started(self, label: str, setting: Setting, stack: ExitStack) -> Client:
        """A worker process for whoever is called `label`."""
        index = next((i for i, one in enumerate(self.contestants) if one.label == label), 0)  # the second one of the first
        # Decoders of one shape would find each other's code in a shared cache, and compile in no time.
        cache = str(self.folder / f"compiled-{index}")
        cpus = _cpus(setting.cores)
        job = Job(self.contestants[index], self.device, setting.dtype, cpus, cache, self.protocol.seed, 0.0, setting.resolution)
        return stack.enter_context(closing(Client(job, self.deadline)))

    def start_workers(self, setting: Setting, stack: ExitStack) -> Workers:
        """Start every worker, the first decoder's twice, and measure the device's limits in the first."""
        labels = [*(one.label for one in self.contestants), self.first + AGAIN]
        clients = {label: self.started(label, setting, stack) for label in labels}
        for label, client in clients.items():
            outcome = client.ask(Bench.release)  # the first question builds the decoder
            if outcome.for_users:
                raise MsbenchError(f"--decoder {label}: {outcome.reason}")
        self.wait(str(setting))
        idle_w: float | None = None
        ceilings: Ceilings | None = None
        # Another decoder's process serves as well, should the first one not even build.
        for client in clients.values():
            if self.on_gpu and idle_w is None:
                client.ask(Bench.describe, setting.resolution)  # makes the CUDA context, which costs watts by itself
                idle_w = client.ask(Bench.idle_power).value
            if self.protocol.ceiling_seconds > 0:
                outcome = client.ask(Bench.ceilings, self.protocol.ceiling_seconds)
                ceilings = outcome.value
                if ceilings is None:
                    self.results.notes.append(f"ceilings not measured ({setting.dtype}): {outcome.reason}")
                    continue
                self.results.ceilings.append({"cores": setting.cores, **asdict(ceilings)})
            break
        return Workers(clients, self.on_gpu, idle_w, ceilings)

    def time(self, setting: Setting, workers: Workers) -> None:
        """Every decoder in one setting."""
        for label, client in workers.clients.items():
            if not client.alive:
                client.close()
                client.start()
                self.results.notes.append(f"{label}: its process had ended and was started anew")
        labels = [one.label for one in self.contestants]
        settings = {one.label: self.own(one, setting) for one in self.contestants}
        settings[self.first + AGAIN] = settings[self.first]
        facts = {label: self.facts_of(label, settings[label], workers) for label in labels}
        timings: dict[str, TimedCalls] = {}
        if setting.batch == "max":
            for label in labels:
                timings |= self.timed(str(setting), workers, {label: settings[label]})
                workers.clients[label].ask(Bench.release)
        else:
            timings = self.timed(str(setting), workers, settings)
        for label, client in workers.clients.items():
            client.ask(Bench.release)
            if self.on_gpu and label in timings and timings[label].outcome.status == "failed":
                client.close()  # some CUDA errors leave a process that can do nothing any more; the next setting starts another
        memories = {label: self.memory_of(timings[label]) for label in labels}
        self.keep(timings.values())
        firsts: dict[str, SpeedRow] = {}
        for label, scope in itertools.product(labels, SCOPES):
            row = speed_row(timings[label], scope, facts[label], memories[label], workers.ceilings)
            first = firsts.setdefault(scope, row)
            in_turns = setting.batch != "max" and first.status == row.status == "ok"
            ratio = time_ratio(timings[self.first], timings[label], scope) if in_turns else None
            self.results.cells.append(row.against(first, ratio))
        if again := timings.get(self.first + AGAIN):
            self.results.noise_floor += [noise_floor(timings[self.first], again, scope) for scope in SCOPES]

    def facts_of(self, label: str, setting: Setting, workers: Workers) -> Facts | None:
        key = (label, setting.dtype, setting.resolution)
        if key not in self.facts:
            outcome = workers.clients[label].ask(Bench.describe, setting.resolution)
            self.facts[key] = outcome.value
            if outcome.status != "ok":
                where = f"at {setting.resolution} px ({setting.dtype})"
                self.results.notes.append(f"{label}: FLOPs not counted {where}: {outcome.reason}")
        return self.facts[key]

    def memory_of(self, timing: TimedCalls) -> Memory | None:
        """Memory and cold start of a decoder that was timed, in a process of their own; None where they are not asked for."""
        if not self.protocol.memory or timing.outcome.status != "ok" or timing.prepared is None:
            return None
        outcome = Outcome("skipped_budget", SKIPPED)
        if not self.over():
            with ExitStack() as stack:
                client = self.started(timing.label, timing.setting, stack)
                outcome = client.ask(Bench.fresh, timing.setting, timing.prepared.batch)
        if outcome.status != "ok":
            self.results.notes.append(f"{timing.label}, {timing.setting}: no memory and cold start: {outcome.reason}")
        found: Memory | None = outcome.value
        return found

    def keep(self, timings: Collection[TimedCalls], final: bool = False) -> None:
        """Every call as a sample."""
        for timing in timings:
            of = timing.setting
            cores = None if of.cores is None else str(of.cores)
            for turn, times in enumerate(timing.rounds):
                for scope, seconds in times.seconds.items():
                    key = (timing.label, str(of.batch), of.mode, of.dtype, scope, of.resolution, cores, turn, final)
                    self.results.samples += [(*key, 1e3 * value) for value in seconds]


def _cpus(cores: Cores | None) -> tuple[int, ...] | None:
    """CPUs to pin to: the last ones of those allowed, since the first serve interrupts on many machines."""
    if cores is None:
        return None
    return tuple(allowed_cpus() if cores == "all" else allowed_cpus()[-cores:])
