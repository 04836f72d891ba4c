"""A run of `msbench speed`: processes started, settings gone through, cells filled.

Nothing a decoder does ends it, but one that cannot be built as asked for ends it before anything is timed.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from harness.cost.attempt import Outcome
from harness.cost.modes import Mode
from harness.cost.roofline import Ceilings
from harness.errors import MsbenchError
from harness.speed.cells import Fastest, NoiseFloor, Place, SpeedRow, empty_row, fastest, noise_floor, timed_row
from harness.speed.client import Client
from harness.speed.messages import Describe, Facts, Fresh, Job, Measure, Memory, Release
from harness.speed.protocol import SCOPES, Contestant, Cores, Setting, SpeedProtocol
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
    floors: list[NoiseFloor] = field(default_factory=list)
    """one per setting, scope, dtype and number of cores that was timed in turns"""
    fastest: list[Fastest] = field(default_factory=list)
    """everybody in their own fastest mode and dtype, one table per resolution, number of cores and batch"""
    samples: list[Sample] = field(default_factory=list)
    """every timed call"""
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    """the device's limits, one per dtype and number of cores"""
    notes: list[str] = field(default_factory=list)
    """what went wrong beside the cells, one line each"""


def measure_speed(
    contestants: Sequence[Contestant], device: str, protocol: SpeedProtocol, report: Progress = lambda stage, done, total: None
) -> Results:
    """Measure every cell.

    Args:
        contestants: at least one; the others are held against the first.
        device: cpu, cuda or cuda:N.
        protocol: what and how.
        report: told of progress.

    Raises:
        MsbenchError: a decoder cannot be built the way it was asked for; nothing has been timed then.
    """
    with tempfile.TemporaryDirectory(prefix="msbench-speed-") as folder:
        run = _Run(tuple(contestants), device, protocol, Path(folder), report)
        run.go()
    return run.results


class _Run:
    """The state of one run."""

    def __init__(
        self, contestants: tuple[Contestant, ...], device: str, protocol: SpeedProtocol, folder: Path, report: Progress
    ) -> None:
        self.contestants, self.device, self.protocol, self.folder, self.report = contestants, device, protocol, folder, report
        self.results = Results()
        self.on_gpu = device.startswith("cuda")
        self.first = contestants[0].label
        self.deadline = None if protocol.budget_seconds is None else time.monotonic() + protocol.budget_seconds
        self.facts: dict[tuple[str, str, int], Facts | None] = {}
        self.done = 0

    def over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def go(self) -> None:
        on_cores: tuple[Cores | None, ...] = self.protocol.cores if self.device == "cpu" else (None,)
        places = [Place(dtype, cores) for cores in on_cores for dtype in self.protocol.dtypes]
        settings = list(self.protocol.settings())
        total = len(places) * len(settings)
        for place in places:
            possible = [setting for setting in settings if self.why_not(setting) is None]
            with ExitStack() as stack:
                workers: Workers | None = None
                for setting in settings:
                    self.report(f"timing {_words(place, setting)}", self.done, total)
                    reason = self.why_not(setting)
                    if reason is not None:
                        self.none(place, setting, Outcome("unsupported", reason))
                    elif self.over():
                        self.none(place, setting, Outcome("skipped_budget", SKIPPED))
                    else:
                        if workers is None:
                            workers, place = self.start_workers(place, stack, possible[0])  # noqa: PLW2901 now with its ceilings
                        self.group(place, setting, workers)
                    self.done += 1
        self.results.fastest = [
            table if table.side_by_side or table.batch == "max" or self.over() else self.final(table)
            for table in fastest(self.results.cells, self.first)
        ]
        self.report("timing", total, total)

    def final(self, best: Fastest) -> Fastest:
        """Everybody in their own fastest mode and dtype once more, in the same turns; `best` itself where one of them fails."""
        picks = [cell for cell in best.rows if cell.scope == "decode"]
        settings = {cell.decoder: Setting(best.resolution, cast(Mode, cell.mode), best.batch) for cell in picks}
        places = {cell.decoder: Place(cell.dtype, best.cores) for cell in picks}
        self.report(f"timing everybody's fastest: batch {best.batch}, {best.resolution} px", self.done, self.done + 1)
        with ExitStack() as stack:
            clients = {}
            for one in self.contestants:
                if one.label in places:
                    clients[one.label] = stack.enter_context(Client(self.job(one, places[one.label]), self.deadline))
            timings = time_in_turns(Workers(clients, self.on_gpu), settings, self.protocol, self.over)
        for timing in timings.values():
            self.results.samples += _samples(places[timing.label], settings[timing.label], timing, final=True)
        failed = [timing for timing in timings.values() if timing.outcome.status != "ok"]
        if failed:
            reason = f"{failed[0].label}: {failed[0].outcome.reason}"
            self.results.notes.append(f"batch {best.batch}: everybody's fastest was not timed in the same turns: {reason}")
            return best
        return best.timed_again(timings, self.first)

    def why_not(self, setting: Setting) -> str | None:
        if setting.mode == "cudagraph" and not self.on_gpu:
            return "mode cudagraph needs a CUDA device"
        if setting.batch == "max" and not self.on_gpu:
            return "the largest batch is sought on GPUs only: a CPU shares its memory with everything else"
        return None

    def none(self, place: Place, setting: Setting, outcome: Outcome) -> None:
        self.results.cells += [
            empty_row(one.label, setting, place, scope, outcome) for one in self.contestants for scope in SCOPES
        ]

    def job(self, contestant: Contestant, place: Place) -> Job:
        # Decoders of one shape would find each other's code in a shared cache, and compile in no time.
        cache = self.folder / f"compiled-{self.contestants.index(contestant)}"
        cpus = _cpus(place.cores)
        return Job(contestant, self.device, place.dtype, cpus, str(cache), self.protocol.seed, started=0.0)

    def start_workers(self, place: Place, stack: ExitStack, setting: Setting) -> tuple[Workers, Place]:
        """Start every worker, the first decoder's twice, and measure the device's limits in the first."""
        clients = {}
        for contestant in self.contestants:
            clients[contestant.label] = stack.enter_context(Client(self.job(contestant, place), self.deadline))
        clients[self.first + AGAIN] = stack.enter_context(Client(self.job(self.contestants[0], place), self.deadline))
        for label, client in clients.items():
            outcome = client.ask(Release())  # the first question builds the decoder
            if outcome.for_users:
                raise MsbenchError(f"--decoder {label}: {outcome.reason}")
        idle_w: float | None = None
        ceilings: Ceilings | None = None
        # Another decoder's process serves as well, should the first one not even build.
        for client in clients.values():
            if self.on_gpu and idle_w is None:
                client.ask(Describe(setting.resolution))  # makes the CUDA context, which costs watts by itself
                idle_w = client.ask(Measure("idle")).value
            if self.protocol.ceiling_seconds > 0:
                outcome = client.ask(Measure("ceilings", self.protocol.ceiling_seconds))
                ceilings = outcome.value
                if ceilings is None:
                    self.results.notes.append(f"ceilings not measured ({place.dtype}): {outcome.reason}")
                    continue
                self.results.ceilings.append({"cores": place.cores, **asdict(ceilings)})
            break
        return Workers(clients, self.on_gpu, idle_w), replace(place, ceilings=ceilings)

    def group(self, place: Place, setting: Setting, workers: Workers) -> None:
        """Every decoder in one setting."""
        self.revive(place, workers)
        labels = [one.label for one in self.contestants]
        facts = {label: self.facts_of(label, place, setting.resolution, workers) for label in labels}
        timings: dict[str, TimedCalls] = {}
        if setting.batch == "max":
            for label in labels:
                timings |= time_in_turns(workers, {label: setting}, self.protocol, self.over)
                workers.clients[label].ask(Release())
        else:
            everybody = dict.fromkeys([*labels, self.first + AGAIN], setting)
            timings = time_in_turns(workers, everybody, self.protocol, self.over)
        for label, client in workers.clients.items():
            client.ask(Release())
            if self.on_gpu and label in timings and timings[label].outcome.status == "failed":
                client.close()  # some CUDA errors leave a process that can do nothing any more; `revive` starts another
        memories = {label: self.memory_of(place, setting, timings[label]) for label in labels}
        for timing in timings.values():
            self.results.samples += _samples(place, setting, timing)
        firsts: dict[str, SpeedRow] = {}
        for label, scope in itertools.product(labels, SCOPES):
            timing = timings[label]
            row = empty_row(label, setting, place, scope, timing.outcome)
            if row.status == "ok":
                row = timed_row(setting, place, scope, timing, facts[label], memories[label])
            first = firsts.setdefault(scope, row)
            in_turns = setting.batch != "max" and first.status == row.status == "ok"
            self.results.cells.append(row.against(first, time_ratio(timings[self.first], timing, scope) if in_turns else None))
        if self.first + AGAIN in timings:
            pair = timings[self.first], timings[self.first + AGAIN]
            self.results.floors += [noise_floor(setting, place, scope, *pair) for scope in SCOPES]

    def revive(self, place: Place, workers: Workers) -> None:
        """Start those anew that ended in an earlier setting."""
        for index, (label, client) in enumerate(workers.clients.items()):
            if not client.alive:
                contestant = self.contestants[index % len(self.contestants)]  # the last is the first again
                client.restart(self.job(contestant, place))
                self.results.notes.append(f"{label}: its process had ended and was started anew")

    def facts_of(self, label: str, place: Place, resolution: int, workers: Workers) -> Facts | None:
        key = (label, place.dtype, resolution)
        if key not in self.facts:
            outcome = workers.clients[label].ask(Describe(resolution))
            self.facts[key] = outcome.value
            if outcome.status != "ok":
                self.results.notes.append(f"{label}: FLOPs not counted at {resolution} px ({place.dtype}): {outcome.reason}")
        return self.facts[key]

    def memory_of(self, place: Place, setting: Setting, timing: TimedCalls) -> Memory | None:
        """Memory and cold start of a decoder that was timed, in a process of their own."""
        if timing.outcome.status != "ok" or timing.prepared is None:
            return None
        outcome = Outcome("skipped_budget", SKIPPED)
        if not self.over():
            contestant = next(one for one in self.contestants if one.label == timing.label)
            with Client(self.job(contestant, place), self.deadline) as client:
                outcome = client.ask(Fresh(replace(setting, batch=timing.prepared.batch)))
        if outcome.status != "ok":
            self.results.notes.append(f"{timing.label}, {_words(place, setting)}: no memory and cold start: {outcome.reason}")
        found: Memory | None = outcome.value
        return found


def _cpus(cores: Cores | None) -> tuple[int, ...] | None:
    """CPUs to pin to: the last ones of those allowed, since the first serve interrupts on many machines."""
    if cores is None:
        return None
    able = hasattr(os, "sched_getaffinity")
    allowed = sorted(os.sched_getaffinity(0)) if able else list(range(os.cpu_count() or 1))
    return tuple(allowed if cores == "all" else allowed[-cores:])


def available_cores() -> int:
    """CPUs this process may use."""
    return len(_cpus("all") or ())


def _words(place: Place, setting: Setting) -> str:
    cores = "" if place.cores is None else f", cores {place.cores}"
    return f"batch {setting.batch}, {setting.mode}, {place.dtype}, {setting.resolution} px{cores}"


def _samples(place: Place, setting: Setting, timing: TimedCalls, final: bool = False) -> Iterator[Sample]:
    cores = None if place.cores is None else str(place.cores)
    for turn, times in enumerate(timing.rounds):
        for scope, seconds in times.seconds.items():
            key = (timing.label, str(setting.batch), setting.mode, place.dtype, scope, setting.resolution, cores)
            yield from ((*key, turn, final, 1e3 * value) for value in seconds)
