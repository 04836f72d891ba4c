"""What NVML samples say about a window of work: energy, clocks, throttling and company. Pure functions, no device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

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
    clock_reasons: dict[str, float] | None = None
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
    def busy_energy_j(self) -> float | None:
        """Joules above idle power; None where either is unknown."""
        if self.energy_j is None or self.idle_w is None or self.seconds is None:
            return None
        return self.energy_j - self.idle_w * self.seconds

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

    def to_record(self) -> dict[str, Any]:
        """In JSON types, the derived figures included."""
        return {**asdict(self), "busy_energy_j": self.busy_energy_j, "flags": list(self.flags)}


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
    seconds = samples[-1].seconds - samples[0].seconds
    energy, source = _energy(samples)
    busy = [sample for sample in samples if not (sample.reasons or 0) & _IDLE] or list(samples)
    sm = [sample.sm_mhz for sample in busy if sample.sm_mhz is not None]
    memory = [sample.memory_mhz for sample in busy if sample.memory_mhz is not None]
    limits = [sample.power_limit_mw for sample in samples if sample.power_limit_mw is not None]
    temperatures = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
    shares = _reason_shares(samples)
    throttling = () if shares is None else tuple(name for name in _THROTTLING.values() if name in shares)
    shared, others = _company(samples, own_pids, pids_comparable)
    return PowerReport(
        reason=None if energy is not None else "this GPU tells neither energy nor power",
        device=device,
        samples=len(samples),
        seconds=seconds,
        energy_j=energy,
        energy_source=source,
        mean_w=energy / seconds if energy is not None and seconds > 0 else None,
        idle_w=idle_w,
        sm_mhz_mean=_mean(sm),
        sm_mhz_min=min(sm, default=None),
        memory_mhz_mean=_mean(memory),
        memory_mhz_min=min(memory, default=None),
        power_limit_w=min(limits) / 1e3 if limits else None,
        temperature_c_max=max(temperatures, default=None),
        clock_reasons=shares,
        throttled=None if shares is None else bool(throttling),
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


def _reason_shares(samples: Sequence[PowerSample]) -> dict[str, float] | None:
    """Reason -> share of the samples that told reasons; None where none did."""
    told = [clock_reasons(sample.reasons) for sample in samples if sample.reasons is not None]
    if not told:
        return None
    names = sorted({name for reasons in told for name in reasons})
    return {name: sum(name in reasons for reasons in told) / len(told) for name in names}


def _company(
    samples: Sequence[PowerSample], own_pids: Collection[int], pids_comparable: bool
) -> tuple[bool | None, tuple[int, ...]]:
    """Whether somebody else was on the GPU, and who."""
    told = [sample.pids for sample in samples if sample.pids is not None]
    if not told:
        return None, ()
    seen = {pid for pids in told for pid in pids}
    others = tuple(sorted(seen - set(own_pids)))
    most = max(len(pids) for pids in told)
    if not pids_comparable and others and len(others) == len(seen) and most <= len(own_pids):
        return None, ()
    return bool(others), others


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None
