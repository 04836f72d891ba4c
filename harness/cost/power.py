"""Energy, clocks, throttling and company of an NVIDIA GPU over a stretch of work, sampled from a side process.

with PowerMonitor(0, idle_w=measure_idle_power(0)) as monitor:
    ...                               # work, synchronised before the block ends
monitor.report.joules_per_image(n)    # None without NVML; monitor.report.reason says why
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from harness.cost.nvml import Nvml, handle_of, name_of, sample_until
from harness.cost.power_report import PowerReport, PowerSample, clock_reasons, summarise

__all__ = ["PowerMonitor", "PowerReport", "PowerSample", "clock_reasons", "measure_idle_power", "summarise"]

_ROOT = Path(__file__).resolve().parents[2]
_INIT_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of the Linux kernel
_READY_SECONDS, _END_SECONDS = 30.0, 10.0


class _NoPowerError(Exception):
    """The GPU cannot be watched; the message is the one line why."""


class _Sampler(Protocol):
    """Takes samples between its making and `stop`."""

    device: str | None

    def stop(self) -> list[PowerSample]: ...


class PowerMonitor:
    """Context manager; `report` is there after the block. A GPU that cannot be watched is a report with a reason, no error.

    The block should last seconds rather than milliseconds, since a GPU refreshes its energy counter now and then only, and end
    after the work was waited for. Samples come about every 50 ms from a process of its own, so that neither Python's lock nor a
    synchronisation of the measured process stands between; only its start and end take time here.

    Args:
        device_index: torch's index of the CUDA device (with `nvml` given, NVML's own).
        nvml: a stand-in for `pynvml`, sampled in a thread of this process; tests bring one. None: the real one, side process.
        interval: seconds between samples.
        own_pids: processes that belong to the measurement, this one always among them; any other one makes the row `shared`.
        idle_w: watts measured before (`measure_idle_power`); only passed on.
    """

    def __init__(
        self,
        device_index: int = 0,
        *,
        nvml: Nvml | None = None,
        interval: float = 0.05,
        own_pids: Iterable[int] = (),
        idle_w: float | None = None,
    ) -> None:
        self._index = device_index
        self._nvml = nvml
        self._interval = interval
        self._own_pids = {os.getpid(), *own_pids}
        self._idle_w = idle_w
        self._sampler: _Sampler | None = None
        self._report = PowerReport("not measured yet", idle_w=idle_w)

    @property
    def report(self) -> PowerReport:
        """What was seen; before the block ends, an empty report."""
        return self._report

    def __enter__(self) -> PowerMonitor:
        try:
            if self._nvml is not None:
                self._sampler = _Thread(self._nvml, self._index, self._interval)
            else:
                self._sampler = _Process(_gpu_of(self._index), self._interval)
        except _NoPowerError as error:
            self._report = PowerReport(str(error), idle_w=self._idle_w)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        sampler, self._sampler = self._sampler, None
        if sampler is None:
            return
        try:
            samples = sampler.stop()
        except _NoPowerError as failure:
            self._report = PowerReport(str(failure), sampler.device, idle_w=self._idle_w)
            return
        self._report = summarise(
            samples,
            self._own_pids,
            device=sampler.device,
            idle_w=self._idle_w,
            pids_comparable=self._nvml is not None or _in_first_pid_namespace(),
        )


def measure_idle_power(device_index: int = 0, *, seconds: float = 2.0, nvml: Nvml | None = None) -> float | None:
    """Mean watts while this process waits `seconds`; call it before the work, best with the CUDA context already there.

    None where the GPU cannot be watched; a `PowerMonitor` then says why.
    """
    with PowerMonitor(device_index, nvml=nvml) as monitor:
        time.sleep(seconds)
    return monitor.report.mean_w


class _Thread:
    """Samples a given NVML from a thread of this process."""

    def __init__(self, nvml: Nvml, gpu: int, interval: float) -> None:
        try:
            nvml.nvmlInit()
            handle = handle_of(nvml, gpu)
        except nvml.NVMLError as error:
            raise _NoPowerError(f"NVML: {error}") from error
        self.device = name_of(nvml, handle)
        self._nvml = nvml
        self._stop = threading.Event()
        self._samples: list[PowerSample] = []
        arguments = (self._stop, nvml, handle, interval, self._samples)
        self._thread = threading.Thread(target=sample_until, args=arguments, name="power-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> list[PowerSample]:
        """End and hand over the samples."""
        self._stop.set()
        self._thread.join()
        self._nvml.nvmlShutdown()
        return self._samples


class _Process:
    """Samples from `python -m harness.cost.nvml`; made when the process is ready."""

    def __init__(self, gpu: int | str, interval: float) -> None:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.cost.nvml", str(gpu), str(interval)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            text=True,
            start_new_session=True,  # an interrupted benchmark still ends it in order
        )
        self.device: str | None = None
        assert self._process.stdout is not None
        with _Deadline(self._process, _READY_SECONDS):
            line = self._process.stdout.readline()
        try:
            self.device = _message(line)["device"]
        except _NoPowerError:
            self._end()
            raise

    def stop(self) -> list[PowerSample]:
        """End the process and read its samples."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with _Deadline(self._process, _END_SECONDS):
            with suppress(BrokenPipeError):  # it may have ended already; its exit code says so
                self._process.stdin.close()
            lines = self._process.stdout.read().splitlines()
        code = self._end()
        if code != 0:
            raise _NoPowerError(f"the power sampler ended with code {code}")
        return [PowerSample(**{**fields, "pids": _tuple(fields["pids"])}) for fields in map(_message, lines)]

    def _end(self) -> int:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        return self._process.wait()


class _Deadline:
    """Kills a process that does not answer in time, which ends whatever waits for its output."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self._timer = threading.Timer(seconds, process.kill)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _message(line: str) -> dict[str, Any]:
    """A line of the side process; raises `_NoPowerError` for an error or none."""
    if not line.strip():
        raise _NoPowerError("the power sampler gave no answer")
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise _NoPowerError(message["error"])
    return message


def _tuple(pids: list[int] | None) -> tuple[int, ...] | None:
    return None if pids is None else tuple(pids)


def _gpu_of(device_index: int) -> int | str:
    """What NVML knows torch's device by: its UUID, since CUDA_VISIBLE_DEVICES and its order change indices."""
    import torch

    if not torch.cuda.is_available() or torch.version.cuda is None:
        raise _NoPowerError("no NVIDIA GPU that torch can use: energy, clocks and throttling are not measured")
    if device_index >= torch.cuda.device_count():
        raise _NoPowerError(f"no CUDA device {device_index}: there are {torch.cuda.device_count()}, numbered from 0")
    uuid = getattr(torch.cuda.get_device_properties(device_index), "uuid", None)
    if uuid is None:
        return device_index
    text = str(uuid)
    return text if text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"


def _in_first_pid_namespace() -> bool:
    """This process is numbered as the machine numbers it: not in a container of its own. Without /proc: yes."""
    try:
        return os.readlink("/proc/self/ns/pid") == _INIT_PID_NAMESPACE
    except OSError:
        return True
