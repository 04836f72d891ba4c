"""Energy, clocks, throttling and other processes of an NVIDIA GPU over a stretch of work, by NVML, which is only read.

seconds, report = watch_power(work, 0, idle_w=measure_idle_power(0))    # the work waits for the GPU at its end
report.joules_per_image(n)                                              # None without NVML; report.reason says why
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, TypeVar

import torch

_Result = TypeVar("_Result")
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0  # NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU of nvml.h
INTERVAL = 0.1
"""seconds between two looks"""
_INIT_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of the Linux kernel
# Bits of nvmlClocksEventReasons (nvml.h). The first group takes clocks away from the work; the second is idleness or a setting.
_THROTTLING = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x020: "thermal slowdown (software)",
    0x040: "thermal slowdown (hardware)",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability voltage",
}
_OTHER_REASONS = {0x001: "idle", 0x002: "clocks set by a user", 0x010: "sync boost", 0x100: "display clocks"}
_IDLE = 0x001


@dataclass(frozen=True, slots=True)
class PowerSample:
    """One look at a GPU; None for whatever NVML does not tell on it."""

    seconds: float
    """monotonic clock of the sampler"""
    energy_mj: int | None = None
    """millijoules since the driver was loaded"""
    power_mw: int | None = None
    """milliwatts; on many GPUs a mean over the last second"""
    sm_mhz: int | None = None
    """clock of the multiprocessors"""
    memory_mhz: int | None = None
    """clock of the memory"""
    temperature_c: int | None = None
    """degrees Celsius of the chip"""
    power_limit_mw: int | None = None
    """milliwatts the driver enforces"""
    reasons: int | None = None
    """bits of the reasons why clocks are not at their highest"""
    pids: tuple[int, ...] | None = None
    """processes with a compute context"""


@dataclass(frozen=True, slots=True)
class PowerReport:
    """A window of work on one GPU. Every figure is None where NVML or the GPU does not give it; `reason` then says why."""

    reason: str | None
    """one line why figures are missing; None where nothing essential is"""
    device: str | None = None
    """the GPU's name"""
    samples: int = 0
    """looks at the GPU"""
    seconds: float | None = None
    """from the first look to the last"""
    energy_j: float | None = None
    """joules within it, idle power included"""
    energy_source: Literal["counter", "integrated power"] | None = None
    """the GPU's own total-energy counter, or the sampled power integrated (trapezia)"""
    mean_w: float | None = None
    """watts: energy over seconds"""
    idle_w: float | None = None
    """watts before the work, as told by whoever measured them"""
    sm_mhz_mean: float | None = None
    """mean clock of the multiprocessors while not idle"""
    sm_mhz_min: int | None = None
    """lowest of them"""
    memory_mhz_mean: float | None = None
    """mean clock of the memory while not idle"""
    memory_mhz_min: int | None = None
    """lowest of them"""
    power_limit_w: float | None = None
    """watts the driver enforces, the lowest seen"""
    temperature_c_max: int | None = None
    """hottest, degrees Celsius"""
    clock_reasons: Mapping[str, float] | None = None
    """reason why clocks were not at their highest -> share of the samples"""
    throttled: bool | None = None
    """a limit of power, heat or hardware took clocks away in at least one sample; None where unknown"""
    throttle_reasons: tuple[str, ...] = ()
    """which of them"""
    shared: bool | None = None
    """another process had a compute context on the GPU; None where unknown"""
    other_pids: tuple[int, ...] = ()
    """those processes"""

    @property
    def flags(self) -> tuple[str, ...]:
        """What a table says beside the row: one short text each."""
        found = []
        if self.throttled and self.clock_reasons is not None:
            shares = [f"{name} {100 * self.clock_reasons[name]:.0f} %" for name in self.throttle_reasons]
            found.append(f"throttled ({', '.join(shares)} of samples)")
        if self.shared:
            count = len(self.other_pids)
            found.append(f"shared with {count} other process{'' if count == 1 else 'es'}")
        return tuple(found)

    def joules_per_image(self, images: int) -> float | None:
        """Energy per image over the window, idle power included; None where unknown. Raises `ValueError` without images."""
        if images < 1:
            raise ValueError(f"energy per image needs images, got {images}")
        return None if self.energy_j is None else self.energy_j / images


Nvml = Any
"""`pynvml`, whose functions raise its `NVMLError` where a GPU does not support them, or a test's own"""


def take_sample(nvml: Nvml, handle: Any, clock: Callable[[], float] = time.monotonic) -> PowerSample:
    """One look at a GPU."""

    def told(name: str, *arguments: int) -> Any:
        """The answer; None where this library, GPU or driver does not give it."""
        try:
            return getattr(nvml, name)(handle, *arguments)
        except (AttributeError, nvml.NVMLError):
            return None

    seconds = clock()
    energy = told("nvmlDeviceGetTotalEnergyConsumption")
    reasons = told("nvmlDeviceGetCurrentClocksEventReasons")
    processes = told("nvmlDeviceGetComputeRunningProcesses")
    return PowerSample(
        seconds=seconds,
        energy_mj=energy,
        power_mw=told("nvmlDeviceGetPowerUsage"),
        sm_mhz=told("nvmlDeviceGetClockInfo", _CLOCK_SM),
        memory_mhz=told("nvmlDeviceGetClockInfo", _CLOCK_MEMORY),
        temperature_c=told("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
        power_limit_mw=told("nvmlDeviceGetEnforcedPowerLimit"),
        # The older name of the same.
        reasons=told("nvmlDeviceGetCurrentClocksThrottleReasons") if reasons is None else reasons,
        pids=None if processes is None else tuple(int(process.pid) for process in processes),
    )


def watch_power(
    work: Callable[[], _Result],
    gpu: int = 0,
    *,
    nvml: Nvml = None,
    own_pids: Collection[int] = (),
    idle_w: float | None = None,
) -> tuple[_Result, PowerReport]:
    """Do `work` and say what a GPU drew meanwhile. One that cannot be watched is a report with a reason, no error.

    The work should last seconds rather than milliseconds, since a GPU refreshes its energy counter now and then only, and wait
    for the GPU at its end. Energy is the counter's at the end less that at the beginning; clocks and the rest are looked at in
    between, by a thread that sleeps between two looks.

    Args:
        work: what is watched.
        gpu: torch's index of the CUDA device (with `nvml` given, NVML's own).
        nvml: a stand-in for `pynvml`; tests bring one.
        own_pids: processes that belong to the measurement, this one always among them; any other one makes the row `shared`.
        idle_w: watts measured before (`measure_idle_power`); only passed on.
    """
    comparable = nvml is not None or _in_first_pid_namespace()
    try:
        nvml, handle = _opened(nvml, gpu)
    except _NoPowerError as error:
        return work(), PowerReport(str(error), idle_w=idle_w)
    device = None
    with suppress(nvml.NVMLError):
        name = nvml.nvmlDeviceGetName(handle)
        device = name.decode() if isinstance(name, bytes) else name
    take_sample(nvml, handle)  # the first look loads what the others need
    samples, stop = [take_sample(nvml, handle)], threading.Event()

    def watch() -> None:
        while not stop.wait(INTERVAL):
            samples.append(take_sample(nvml, handle))

    thread = threading.Thread(target=watch, name="power-sampler", daemon=True)
    thread.start()
    try:
        result = work()
    finally:
        end = take_sample(nvml, handle)  # before waiting for the thread: energy is that of the work
        stop.set()
        thread.join()
        nvml.nvmlShutdown()
    samples = [*(sample for sample in samples if sample.seconds < end.seconds), end]
    own = {os.getpid(), *own_pids}
    return result, summarise(samples, own, device=device, idle_w=idle_w, pids_comparable=comparable)


def measure_idle_power(gpu: int = 0, *, seconds: float = 2.0, nvml: Nvml = None) -> float | None:
    """Mean watts while this process waits `seconds`; call it before the work, best with the CUDA context already there.

    None where the GPU cannot be watched; `watch_power` then says why.
    """
    return watch_power(lambda: time.sleep(seconds), gpu, nvml=nvml)[1].mean_w


def gpu_index(device: torch.device) -> int:
    """torch's index of a CUDA device."""
    return torch.cuda.current_device() if device.index is None else device.index


class _NoPowerError(Exception):
    """The GPU cannot be watched; the message is the one line why."""


def _opened(nvml: Nvml, index: int) -> tuple[Nvml, Any]:
    """NVML, and a GPU in it; torch's device by its UUID, since CUDA_VISIBLE_DEVICES and its order change indices."""
    gpu: int | str = index
    if nvml is None:
        if not torch.cuda.is_available() or torch.version.cuda is None:
            raise _NoPowerError("no NVIDIA GPU that torch can use: energy, clocks and throttling are not measured")
        import pynvml

        nvml = pynvml
        if (uuid := getattr(torch.cuda.get_device_properties(index), "uuid", None)) is not None:
            gpu = str(uuid) if str(uuid).startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByUUID(gpu) if isinstance(gpu, str) else nvml.nvmlDeviceGetHandleByIndex(gpu)
    except nvml.NVMLError as error:
        raise _NoPowerError(f"NVML: {error}") from error


def _in_first_pid_namespace() -> bool:
    """This process is numbered as the machine numbers it: not in a container of its own. Without /proc: yes."""
    try:
        return os.readlink("/proc/self/ns/pid") == _INIT_PID_NAMESPACE
    except OSError:
        return True


def clock_reasons(bits: int) -> tuple[str, ...]:
    """Names of the reasons in a word of bits, lowest bit first; unknown bits by their number."""
    names = _THROTTLING | _OTHER_REASONS
    return tuple(names.get(1 << place, f"bit {1 << place:#x}") for place in range(bits.bit_length()) if bits >> place & 1)


def summarise(
    samples: Sequence[PowerSample],
    own_pids: Collection[int],
    *,
    device: str | None = None,
    idle_w: float | None = None,
    pids_comparable: bool = True,
) -> PowerReport:
    """Make the report of a window.

    Args:
        samples: in the order they were taken; the window runs from the first to the last.
        own_pids: processes that belong to the measurement.
        device: the GPU's name.
        idle_w: watts measured before.
        pids_comparable: NVML numbers processes as this process does. In a container it may number them as the host does:
            as many strangers as own processes may then be the own ones, and whether the GPU is shared is not known.
    """
    if len(samples) < 2:
        return PowerReport(f"too few samples of the GPU ({len(samples)})", device, len(samples), idle_w=idle_w)

    def told(name: str, looks: Sequence[PowerSample] = samples) -> list[Any]:
        return [value for look in looks if (value := getattr(look, name)) is not None]

    seconds = samples[-1].seconds - samples[0].seconds
    energy, source = _energy(samples)
    busy = [sample for sample in samples if not (sample.reasons or 0) & _IDLE] or list(samples)
    sm, memory, limits = told("sm_mhz", busy), told("memory_mhz", busy), told("power_limit_mw")
    reasons = [clock_reasons(bits) for bits in told("reasons")]
    names = sorted({name for some in reasons for name in some})
    shares = {name: sum(name in some for some in reasons) / len(reasons) for name in names} if reasons else None
    throttling = tuple(name for name in _THROTTLING.values() if name in names)
    shared, others = _others(told("pids"), own_pids, pids_comparable)
    return PowerReport(
        reason=None if energy is not None else "this GPU tells neither energy nor power",
        device=device,
        samples=len(samples),
        seconds=seconds,
        energy_j=energy,
        energy_source=source,
        mean_w=energy / seconds if energy is not None and seconds > 0 else None,
        idle_w=idle_w,
        sm_mhz_mean=fmean(sm) if sm else None,
        sm_mhz_min=min(sm, default=None),
        memory_mhz_mean=fmean(memory) if memory else None,
        memory_mhz_min=min(memory, default=None),
        power_limit_w=min(limits) / 1e3 if limits else None,
        temperature_c_max=max(told("temperature_c"), default=None),
        clock_reasons=shares,
        throttled=bool(throttling) if reasons else None,
        throttle_reasons=throttling,
        shared=shared,
        other_pids=others,
    )


def _energy(samples: Sequence[PowerSample]) -> tuple[float | None, Literal["counter", "integrated power"] | None]:
    """Joules of the window and where they come from."""
    first, last = samples[0].energy_mj, samples[-1].energy_mj
    # A counter that stands still or runs backwards (a reloaded driver) is no counter.
    if first is not None and last is not None and last > first:
        return (last - first) / 1e3, "counter"
    known = [(sample.seconds, sample.power_mw / 1e3) for sample in samples if sample.power_mw is not None]
    if len(known) < 2:
        return None, None
    joules = sum((b - a) * (p + q) / 2 for (a, p), (b, q) in pairwise(known))
    span, window = known[-1][0] - known[0][0], samples[-1].seconds - samples[0].seconds
    return joules * (window / span if span > 0 else 1.0), "integrated power"


def _others(
    told: Sequence[tuple[int, ...]], own_pids: Collection[int], pids_comparable: bool
) -> tuple[bool | None, tuple[int, ...]]:
    """Whether somebody else was on the GPU, and who."""
    seen = {pid for pids in told for pid in pids}
    others = tuple(sorted(seen - set(own_pids)))
    foreign = not pids_comparable and others and len(others) == len(seen) and max(map(len, told)) <= len(own_pids)
    return (None, ()) if not told or foreign else (bool(others), others)
