"""A run of `msbench speed`: processes started, settings gone through, cells filled.

Nothing a decoder does ends it, but one that cannot be built as asked for ends it before anything is timed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from harness.cost.modes import Mode
from harness.cost.roofline import Ceilings
from harness.errors import MsbenchError
from harness.speed.cells import Cell, NoiseFloor, Place, empty_cell, noise_floor, timed_cell
from harness.speed.client import Client
from harness.speed.fastest import Fastest, fastest
from harness.speed.messages import Describe, Facts, Fresh, Job, Measure, Memory, Release, Reply
from harness.speed.protocol import SCOPES, Contestant, Cores, Setting, SpeedProtocol
from harness.speed.turns import Table, Timing, deadline_of, is_over, time_in_turns, time_ratio

AGAIN = " (again)"
"""marks the second process of the first decoder, whose times give the noise floor"""
SKIPPED = "--budget-seconds was used up before this cell"
_BUSY_SHARE = 0.5
ONE_BY_ONE = "timed one after the other: largest batches do not fit side by side"

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(slots=True)
class Results:
    """What a run gathers."""

    cells: list[Cell] = field(default_factory=list)
    """in the order measured"""
    floors: list[NoiseFloor] = field(default_factory=list)
    """one per setting, scope, dtype and number of cores that was timed in turns"""
    fastest: list[Fastest] = field(default_factory=list)
    """everybody in their own fastest mode and dtype, one table per resolution, number of cores and batch"""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """every timed call: decoder (the second process marked), the cell's keys, turn, ms, and whether it is of `fastest`"""
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
    results = Results()
    with tempfile.TemporaryDirectory(prefix="msbench-speed-") as folder:
        _Run(tuple(contestants), device, protocol, Path(folder), results, report).go()
    return results


class _Run:
    """The state of one run."""

    def __init__(
        self,
        contestants: tuple[Contestant, ...],
        device: str,
        protocol: SpeedProtocol,
        folder: Path,
        results: Results,
        report: Progress,
    ) -> None:
        self.contestants, self.device, self.protocol, self.folder = contestants, device, protocol, folder
        self.results, self.report = results, report
        self.on_gpu = device.startswith("cuda")
        self.first = contestants[0].label
        self.deadline = deadline_of(protocol, time.monotonic())
        self.facts: dict[tuple[str, str, int], Facts | None] = {}
        self.done = 0

    def over(self) -> bool:
        return is_over(self.deadline)

    def go(self) -> None:
        on_cores: tuple[Cores | None, ...] = self.protocol.cores if self.device == "cpu" else (None,)
        self.results.notes += _busy() if self.device == "cpu" else []
        places = [Place(dtype, cores) for cores in on_cores for dtype in self.protocol.dtypes]
        settings = list(self.protocol.settings())
        total = len(places) * len(settings)
        for place in places:
            possible = [setting for setting in settings if self.why_not(setting) is None]
            with ExitStack() as stack:
                table: Table | None = None
                for setting in settings:
                    self.report(f"timing {_words(place, setting)}", self.done, total)
                    reason = self.why_not(setting)
                    if reason is not None:
                        self.none(place, setting, Reply("unsupported", reason))
                    elif self.over():
                        self.none(place, setting, Reply("skipped_budget", SKIPPED))
                    else:
                        if table is None:
                            table, place = self.sit_down(place, stack, possible[0])  # noqa: PLW2901 now with its ceilings
                        self.group(place, setting, table)
                    self.done += 1
        self.results.fastest = [
            table if table.side_by_side or table.batch == "max" or self.over() else self.final(table)
            for table in fastest(self.results.cells, self.first)
        ]
        self.report("timing", total, total)

    def final(self, best: Fastest) -> Fastest:
        """Everybody in their own fastest mode and dtype once more, in the same turns; `best` itself where one of them fails."""
        picks = [cell for cell in best.cells if cell.scope == "decode"]
        settings = {cell.decoder: Setting(best.resolution, cast(Mode, cell.mode), best.batch) for cell in picks}
        places = {cell.decoder: Place(cell.dtype, best.cores) for cell in picks}
        self.report(f"timing everybody's fastest: batch {best.batch}, {best.resolution} px", self.done, self.done + 1)
        with ExitStack() as stack:
            clients = {}
            for one in self.contestants:
                if one.label in places:
                    clients[one.label] = stack.enter_context(Client(self.job(one, places[one.label]), self.deadline))
            timings = time_in_turns(Table(clients, self.on_gpu), settings, self.protocol, self.over)
        for timing in timings.values():
            self.results.samples += _sample_rows(places[timing.label], settings[timing.label], timing, final=True)
        failed = [timing for timing in timings.values() if timing.reply.status != "ok"]
        if failed:
            reason = f"{failed[0].label}: {failed[0].reply.reason}"
            self.results.notes.append(f"batch {best.batch}: everybody's fastest was not timed in the same turns: {reason}")
            return best
        return best.timed_again(timings, self.first)

    def why_not(self, setting: Setting) -> str | None:
        if setting.mode == "cudagraph" and not self.on_gpu:
            return "mode cudagraph needs a CUDA device"
        if setting.batch == "max" and not self.on_gpu:
            return "the largest batch is sought on GPUs only: a CPU shares its memory with everything else"
        return None

    def none(self, place: Place, setting: Setting, reply: Reply) -> None:
        self.results.cells += [
            empty_cell(one.label, setting, place, scope, reply.status, reply.reason)
            for one in self.contestants
            for scope in SCOPES
        ]

    def job(self, contestant: Contestant, place: Place) -> Job:
        # Decoders of one shape would find each other's code in a shared cache, and compile in no time.
        cache = self.folder / f"compiled-{self.contestants.index(contestant)}"
        cpus = _cpus(place.cores)
        return Job(contestant, self.device, place.dtype, cpus, str(cache), self.protocol.seed, started=0.0)

    def sit_down(self, place: Place, stack: ExitStack, setting: Setting) -> tuple[Table, Place]:
        """Start every worker, the first decoder's twice, and measure the device's limits in the first."""
        clients = {}
        for contestant in self.contestants:
            clients[contestant.label] = stack.enter_context(Client(self.job(contestant, place), self.deadline))
        clients[self.first + AGAIN] = stack.enter_context(Client(self.job(self.contestants[0], place), self.deadline))
        for label, client in clients.items():
            reply = client.ask(Release())  # the first question builds the decoder
            if reply.for_users:
                raise MsbenchError(f"--decoder {label}: {reply.reason}")
        idle_w: float | None = None
        ceilings: Ceilings | None = None
        # Another decoder's process serves as well, should the first one not even build.
        for client in clients.values():
            if self.on_gpu and idle_w is None:
                client.ask(Describe(setting.resolution))  # makes the CUDA context, which costs watts by itself
                idle_w = client.ask(Measure("idle")).value
            if self.protocol.ceiling_seconds > 0:
                reply = client.ask(Measure("ceilings", self.protocol.ceiling_seconds))
                ceilings = reply.value
                if ceilings is None:
                    self.results.notes.append(f"ceilings not measured ({place.dtype}): {reply.reason}")
                    continue
                self.results.ceilings.append({"cores": place.cores, **ceilings.to_record()})
            break
        return Table(clients, self.on_gpu, idle_w), replace(place, ceilings=ceilings)

    def group(self, place: Place, setting: Setting, table: Table) -> None:
        """Every decoder in one setting."""
        self.revive(place, table)
        labels = [one.label for one in self.contestants]
        facts = {label: self.facts_of(label, place, setting.resolution, table) for label in labels}
        timings: dict[str, Timing] = {}
        flags: list[str] = []
        if setting.batch == "max":
            flags.append(ONE_BY_ONE)
            for label in labels:
                timings |= time_in_turns(table, {label: setting}, self.protocol, self.over)
                table.clients[label].ask(Release())
        else:
            everybody = dict.fromkeys([*labels, self.first + AGAIN], setting)
            timings = time_in_turns(table, everybody, self.protocol, self.over)
        for label, client in table.clients.items():
            client.ask(Release())
            if self.on_gpu and label in timings and timings[label].reply.status == "failed":
                client.close()  # some CUDA errors leave a process that can do nothing any more; `revive` starts another
        memories = {label: self.memory_of(place, setting, timings[label]) for label in labels}
        for timing in timings.values():
            self.results.samples += _sample_rows(place, setting, timing)
        cells = []
        for label in labels:
            for scope in SCOPES:
                reply = timings[label].reply
                if reply.status == "ok":
                    cells.append(timed_cell(setting, place, scope, timings[label], facts[label], memories[label], flags))
                else:
                    cells.append(empty_cell(label, setting, place, scope, reply.status, reply.reason))
        firsts = {cell.scope: cell for cell in cells if cell.decoder == self.first}
        for cell in cells:
            first = firsts.get(cell.scope)
            in_turns = setting.batch != "max" and first is not None and first.status == cell.status == "ok"
            measured = time_ratio(timings[self.first], timings[cell.decoder], cell.scope) if in_turns else None
            self.results.cells.append(cell.against(first, measured))
        if self.first + AGAIN in timings:
            pair = timings[self.first], timings[self.first + AGAIN]
            self.results.floors += [noise_floor(setting, place, scope, *pair) for scope in SCOPES]

    def revive(self, place: Place, table: Table) -> None:
        """Start those anew that ended in an earlier setting."""
        for index, (label, client) in enumerate(table.clients.items()):
            if not client.alive:
                contestant = self.contestants[index % len(self.contestants)]  # the last is the first again
                client.restart(self.job(contestant, place))
                self.results.notes.append(f"{label}: its process had ended and was started anew")

    def facts_of(self, label: str, place: Place, resolution: int, table: Table) -> Facts | None:
        key = (label, place.dtype, resolution)
        if key not in self.facts:
            reply = table.clients[label].ask(Describe(resolution))
            self.facts[key] = reply.value
            if reply.status != "ok":
                self.results.notes.append(f"{label}: FLOPs not counted at {resolution} px ({place.dtype}): {reply.reason}")
        return self.facts[key]

    def memory_of(self, place: Place, setting: Setting, timing: Timing) -> Memory | None:
        """Memory and cold start of a decoder that was timed, in a process of their own."""
        if timing.reply.status != "ok" or timing.prepared is None:
            return None
        reply = Reply("skipped_budget", SKIPPED)
        if not self.over():
            contestant = next(one for one in self.contestants if one.label == timing.label)
            with Client(self.job(contestant, place), self.deadline) as client:
                reply = client.ask(Fresh(replace(setting, batch=timing.prepared.batch)))
        if reply.status != "ok":
            self.results.notes.append(f"{timing.label}, {_words(place, setting)}: no memory and cold start: {reply.reason}")
        found: Memory | None = reply.value
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


def _busy() -> list[str]:
    """A line where other work already fills the cores; load averages exist on Unix alone."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = available_cores()
    if load < _BUSY_SHARE * cores:
        return []
    return [f"the machine was busy when this began (load {load:.1f} on {cores} cores): times are disturbed"]


def _words(place: Place, setting: Setting) -> str:
    cores = "" if place.cores is None else f", cores {place.cores}"
    return f"batch {setting.batch}, {setting.mode}, {place.dtype}, {setting.resolution} px{cores}"


def _sample_rows(place: Place, setting: Setting, timing: Timing, final: bool = False) -> Iterator[dict[str, Any]]:
    for turn, samples in enumerate(timing.rounds):
        for scope, seconds in samples.items():
            for value in seconds:
                yield {
                    "decoder": timing.label,
                    "batch": str(setting.batch),
                    "mode": setting.mode,
                    "dtype": place.dtype,
                    "scope": scope,
                    "resolution": setting.resolution,
                    "cores": None if place.cores is None else str(place.cores),
                    "turn": turn,
                    "final": final,
                    "ms": 1e3 * value,
                }
