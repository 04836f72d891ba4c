"""Reports from samples worked out by hand, and a simulated NVML."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from harness.cost import power
from harness.cost.power import PowerReport, PowerSample, clock_reasons, measure_idle_power, summarise, take_sample, watch_power

ME = os.getpid()


class FakeNvmlError(Exception):
    pass


@dataclass
class Process:
    pid: int


class FakeNvml:
    """A GPU that draws `watts`, with an energy counter that follows the clock."""

    NVMLError = FakeNvmlError

    def __init__(
        self, watts: float = 300.0, reasons: int = 0, pids: tuple[int, ...] = (ME,), missing: tuple[str, ...] = ()
    ) -> None:
        self.watts, self.reasons, self.pids, self.missing = watts, reasons, pids, missing
        self.calls: list[str] = []
        self.initialised = 0

    def _answer(self, name: str, value: Any) -> Any:
        self.calls.append(name)
        if name in self.missing:
            raise FakeNvmlError("Not Supported")
        return value

    def nvmlInit(self) -> None:
        self._answer("init", None)
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.initialised -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return self._answer("handle", index)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return self._answer("handle", uuid)

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self._answer("name", b"Fake GPU")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return self._answer("energy", int(time.monotonic() * self.watts * 1000))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return self._answer("power", int(self.watts * 1000))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return self._answer("limit", 700_000)

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        return self._answer("clock", {1: 1980, 2: 2619}[kind])

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self._answer("temperature", 51)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return self._answer("reasons", self.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Process]:
        return self._answer("processes", [Process(pid) for pid in self.pids])


def window(*reasons: int, pids: tuple[int, ...] = (ME,)) -> list[PowerSample]:
    """Samples a second apart: 100 J each, clocks falling by 100 MHz."""
    return [
        PowerSample(float(i), 100_000 * i, 90_000, 1900 - 100 * i, 2600, 50 + i, 700_000 - i, bits, pids)
        for i, bits in enumerate(reasons)
    ]


def test_the_energy_counter_over_the_window() -> None:
    report = summarise(window(0, 0, 0), {ME}, device="Fake", idle_w=60.0)
    assert (report.samples, report.seconds, report.energy_j, report.energy_source) == (3, 2.0, 200.0, "counter")
    assert (report.mean_w, report.idle_w) == (100.0, 60.0)
    assert report.joules_per_image(8) == 25.0
    assert (report.sm_mhz_mean, report.sm_mhz_min, report.memory_mhz_mean, report.memory_mhz_min) == (
        1800.0,
        1700,
        2600.0,
        2600,
    )
    assert (report.temperature_c_max, report.power_limit_w) == (52, 699.998)
    assert (report.throttled, report.shared, report.flags, report.reason) == (False, False, (), None)
    adapter = TypeAdapter(PowerReport)
    assert adapter.validate_json(adapter.dump_json(report)) == report
    with pytest.raises(ValueError, match="needs images"):
        report.joules_per_image(0)


@pytest.mark.parametrize("counter", [(None, None, None), (5, 5, 5), (9, 4, 1)])
def test_power_is_integrated_where_the_counter_is_missing_stands_or_runs_back(counter: tuple[int | None, ...]) -> None:
    watts, times = (100, 300, 200), (0.0, 1.0, 3.0)
    samples = [PowerSample(t, energy, 1000 * w) for t, energy, w in zip(times, counter, watts, strict=True)]
    report = summarise(samples, {ME})
    assert (report.energy_j, report.energy_source) == (200.0 + 500.0, "integrated power")
    assert report.mean_w == pytest.approx(700 / 3)
    # What the ends do not tell is taken at the mean of the rest.
    samples = [PowerSample(0.0), PowerSample(1.0, None, 100_000), PowerSample(2.0, None, 100_000), PowerSample(4.0)]
    assert summarise(samples, {ME}).energy_j == pytest.approx(400.0)


def test_throttling_is_flagged_with_its_reasons() -> None:
    # The bits of nvml.h: power cap 4, hardware thermal slowdown 0x40, idle 1, application clocks 2.
    report = summarise(window(0, 4, 4 | 0x40, 2), {ME})
    assert report.throttled is True
    assert report.throttle_reasons == ("power cap", "thermal slowdown (hardware)")
    assert report.clock_reasons == {"power cap": 0.5, "thermal slowdown (hardware)": 0.25, "clocks set by a user": 0.25}
    assert report.flags == ("throttled (power cap 50 %, thermal slowdown (hardware) 25 % of samples)",)
    assert summarise(window(1, 2, 0x10, 0x100), {ME}).throttled is False


def test_reasons_are_those_of_the_library() -> None:
    pynvml = pytest.importorskip("pynvml")
    known = {value: name for name, value in vars(pynvml).items() if name.startswith("nvmlClocksThrottleReason")}
    for bit in (bit for bit in known if bit and not bit & (bit - 1)):
        assert not clock_reasons(bit)[0].startswith("bit"), known[bit]
    assert clock_reasons(pynvml.nvmlClocksThrottleReasonSwPowerCap) == ("power cap",)
    assert clock_reasons(pynvml.nvmlClocksThrottleReasonHwThermalSlowdown) == ("thermal slowdown (hardware)",)
    assert clock_reasons(0) == ()
    assert clock_reasons(1 << 40) == ("bit 0x10000000000",)


def test_clocks_while_idle_do_not_count() -> None:
    assert summarise(window(1, 0, 0), {ME}).sm_mhz_mean == 1750.0
    assert summarise(window(1, 1, 1), {ME}).sm_mhz_mean == 1800.0


def test_other_processes_are_flagged() -> None:
    samples = [*window(0, 0), PowerSample(3.0, 300_000, pids=(ME, 77, 42))]
    report = summarise(samples, {ME})
    assert (report.shared, report.other_pids, report.flags) == (True, (42, 77), ("shared with 2 other processes",))
    assert summarise(samples, {ME, 42}).flags == ("shared with 1 other process",)
    assert summarise(samples, {ME, 42, 77}).shared is False


def test_foreign_numbers_in_a_container_are_not_taken_for_company() -> None:
    # As many strangers as own processes may be those themselves under the host's numbers; one more cannot.
    assert summarise(window(0, 0, pids=(5001,)), {ME}, pids_comparable=False).shared is None
    assert summarise(window(0, 0, pids=(5001, 5002)), {ME}, pids_comparable=False).shared is True
    assert summarise(window(0, 0, pids=(ME, 5002)), {ME}, pids_comparable=False).other_pids == (5002,)
    assert summarise(window(0, 0, pids=()), {ME}, pids_comparable=False).shared is False
    assert summarise(window(0, 0, pids=(5001,)), {ME}).shared is True


def test_what_nvml_does_not_tell_is_none() -> None:
    report = summarise([PowerSample(0.0), PowerSample(1.0)], {ME})
    assert (report.energy_j, report.mean_w, report.sm_mhz_mean, report.throttled, report.shared) == (None,) * 5
    assert report.reason == "this GPU tells neither energy nor power"
    assert (report.joules_per_image(3), report.flags) == (None, ())
    assert summarise([PowerSample(0.0)], {ME}).reason == "too few samples of the GPU (1)"


def test_work_on_a_simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "INTERVAL", 0.01)
    nvml = FakeNvml(watts=300.0, reasons=4, pids=(ME, 77))
    result, report = watch_power(lambda: time.sleep(0.1) or "done", nvml=nvml, idle_w=70.0)
    assert (result, report.device, report.energy_source, report.idle_w) == ("done", "Fake GPU", "counter", 70.0)
    assert report.mean_w == pytest.approx(300.0, rel=0.01)
    assert report.seconds is not None
    assert report.seconds >= 0.1
    assert report.samples >= 3
    assert (report.throttle_reasons, report.other_pids) == (("power cap",), (77,))
    assert nvml.initialised == 0
    assert watch_power(lambda: time.sleep(0.01), nvml=FakeNvml(pids=(ME, 77)), own_pids=(77,))[1].shared is False


def test_idle_power() -> None:
    assert measure_idle_power(0, seconds=0.05, nvml=FakeNvml(watts=65.0)) == pytest.approx(65.0, rel=0.05)
    assert measure_idle_power(0, seconds=0.0, nvml=FakeNvml(missing=("init",))) is None


def test_a_gpu_without_some_functions_and_a_library_without_a_gpu() -> None:
    nvml = FakeNvml(missing=("energy", "power", "clock", "temperature", "limit", "reasons", "processes", "name"))
    sample = take_sample(nvml, 0, clock=lambda: 1.0)
    assert sample == PowerSample(1.0)
    for missing in ("init", "handle"):
        result, report = watch_power(lambda: 5, nvml=FakeNvml(missing=(missing,)))
        assert (result, report.reason, report.energy_j) == (5, "NVML: Not Supported", None)


def test_the_work_s_own_error_passes() -> None:
    nvml = FakeNvml()

    def fails() -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        watch_power(fails, nvml=nvml)
    assert nvml.initialised == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_a_reason_not_an_error() -> None:
    report = watch_power(lambda: None)[1]
    assert report.reason is not None
    assert "no NVIDIA GPU" in report.reason
    assert "\n" not in report.reason
    assert measure_idle_power(0, seconds=0.0) is None


def test_the_older_name_of_the_clock_reasons_is_asked_too() -> None:
    class Older(FakeNvml):
        def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
            return 0x20

    assert take_sample(Older(missing=("reasons",)), 0).reasons == 0x20


def test_only_reading_functions_are_called() -> None:
    names = set(re.findall(r"\bnvml[A-Z]\w+", Path(power.__file__).read_text())) - {"nvmlClocksEventReasons"}
    assert "nvmlDeviceGetPowerUsage" in names
    assert {name for name in names if not name.startswith("nvmlDeviceGet")} == {"nvmlInit", "nvmlShutdown"}
