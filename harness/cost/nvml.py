"""Looking at a GPU through NVML, in this process or as a program of its own; reads only, no setting is ever touched.

As a program (`python -m harness.cost.nvml GPU INTERVAL`) it takes samples until its standard input closes and prints them only
then, so that nothing disturbs the measured process: one JSON line {"device": NAME} when it is ready, at the end one line a
sample. A failure is one line {"error": TEXT}.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from harness.cost.power_report import PowerSample

_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0  # NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU of nvml.h

_Value = TypeVar("_Value")


class Nvml(Protocol):
    """The part of `pynvml` that is used; a test brings its own. Functions raise `NVMLError` where a GPU does not support them.

    Beside these `nvmlDeviceGetCurrentClocksEventReasons(handle)` or its older name (`Throttle` for `Event`), where one exists.
    """

    @property
    def NVMLError(self) -> type[Exception]: ...
    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]: ...


def handle_of(nvml: Nvml, gpu: int | str) -> Any:
    """The handle of a GPU by NVML's index or by its UUID; NVML must be initialised. Raises `NVMLError` where there is none."""
    return nvml.nvmlDeviceGetHandleByUUID(gpu) if isinstance(gpu, str) else nvml.nvmlDeviceGetHandleByIndex(gpu)


def name_of(nvml: Nvml, handle: Any) -> str | None:
    """The GPU's name; None where NVML does not tell it."""
    name = _told(nvml, lambda: nvml.nvmlDeviceGetName(handle))
    return name.decode() if isinstance(name, bytes) else name


def take_sample(nvml: Nvml, handle: Any, clock: Callable[[], float] = time.monotonic) -> PowerSample:
    """One look at a GPU."""
    seconds = clock()
    energy = _told(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    return PowerSample(
        seconds=seconds,
        energy_mj=energy,
        power_mw=_told(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)),
        sm_mhz=_told(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_SM)),
        memory_mhz=_told(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_MEMORY)),
        temperature_c=_told(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU)),
        power_limit_mw=_told(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle)),
        reasons=_reasons(nvml, handle),
        pids=_pids(nvml, handle),
    )


def sample_until(
    stop: threading.Event, nvml: Nvml, handle: Any, interval: float, samples: list[PowerSample] | None = None
) -> list[PowerSample]:
    """Take a sample at once, one every `interval` seconds, and a last one when `stop` is set. Appends to `samples`."""
    samples = [] if samples is None else samples
    samples.append(take_sample(nvml, handle))
    while not stop.wait(interval):
        samples.append(take_sample(nvml, handle))
    samples.append(take_sample(nvml, handle))
    return samples


def _told(nvml: Nvml, ask: Callable[[], _Value]) -> _Value | None:
    """The answer; None where this GPU or driver does not give it."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _reasons(nvml: Nvml, handle: Any) -> int | None:
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        ask = getattr(nvml, name, None)
        bits = None if ask is None else _told(nvml, lambda ask=ask: ask(handle))  # type: ignore[misc]
        if bits is not None:
            return int(bits)
    return None


def _pids(nvml: Nvml, handle: Any) -> tuple[int, ...] | None:
    processes = _told(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return None if processes is None else tuple(int(process.pid) for process in processes)


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main(gpu: str, interval: str) -> int:
    """The program: sample until standard input closes; 1 where NVML does not answer."""
    try:
        import pynvml
    except ImportError as error:
        _say({"error": f"pynvml cannot be imported ({error}); run: pip install nvidia-ml-py"})
        return 1
    try:
        pynvml.nvmlInit()
        handle = handle_of(pynvml, int(gpu) if gpu.isdigit() else gpu)
    except pynvml.NVMLError as error:
        _say({"error": f"NVML: {error}"})
        return 1
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    take_sample(pynvml, handle)  # the first look loads what the others need
    _say({"device": name_of(pynvml, handle)})
    samples = sample_until(stop, pynvml, handle, float(interval))
    pynvml.nvmlShutdown()
    for sample in samples:
        _say(asdict(sample))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
