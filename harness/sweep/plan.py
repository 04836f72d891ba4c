"""What a sweep is asked for, and its plan: every cell with its weights, or with the reason why it is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cost.cost import CostProtocol
from harness.cost.modes import MODES, parse_mode
from harness.errors import MsbenchError, UnknownNameError
from harness.request.requests import parse_request, parse_requests
from harness.run.config import RunConfig
from harness.sweep.weights import Fit, Found, find_checkpoints, fit_baseline, fit_weights


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What `msbench sweep` was asked for."""

    decoders: tuple[str, ...]
    """registry names of decoders that take scales and steps"""
    scales: tuple[int, ...]
    """numbers of scales K"""
    steps: tuple[int, ...]
    """numbers of steps N over all scales"""
    output_dir: Path
    """where cells, runs, table and plots go; cells already there are not measured again"""
    baselines: tuple[str, ...] = ()
    """decoders measured once each, as they ship or with options of their own: `[LABEL=]NAME[@option=value]…`"""
    checkpoint_dir: Path | None = None
    """checkpoints below it go before the shipped ones"""
    run: RunConfig = field(default_factory=lambda: RunConfig(()))
    """data, seed, device and arithmetic of every cell; each fills in its own decoder, steps, scales, checkpoint and folder"""
    modes: tuple[str, ...] = ("eager",)
    """how decoders are run (`harness.cost.modes`); quality is always that of eager"""
    cost: CostProtocol = field(default_factory=CostProtocol)
    """how cost is measured"""
    cost_only: bool = False
    """measure no quality; images are of 256 px where `run` says nothing"""


@dataclass(frozen=True, slots=True)
class SweepCell:
    """One (decoder, K, N) of the plan."""

    decoder: str
    """name as asked for"""
    scales: int
    """K"""
    steps: int
    """N over all scales"""
    baseline: bool
    """measured as it ships, outside the grid"""
    fit: Fit | None
    """its weights; None where it is skipped"""
    skipped: str | None
    """why it is not measured; None where it is"""


def plan_cells(request: SweepRequest) -> list[SweepCell]:
    """Every cell with its weights, or with the reason it is skipped.

    Raises:
        UnknownNameError: no such decoder or mode.
        MsbenchError: nothing to measure, a decoder without scales in the grid, or a checkpoint that cannot be used.
    """
    if not request.decoders:
        raise MsbenchError("no decoder given: use --decoder NAME[,NAME…]; `msbench ls decoders` lists them")
    for option, values in (("--scales", request.scales), ("--steps", request.steps)):
        if not values or min(values) < 1:
            raise MsbenchError(f"{option} {','.join(map(str, values))}: give whole numbers, each at least 1")
    if not request.modes:
        raise MsbenchError(f"no mode given: use --mode with some of {', '.join(MODES)}")
    for mode in request.modes:
        parse_mode(mode)
    found = find_checkpoints(request.checkpoint_dir) if request.checkpoint_dir else ()
    cells = []
    for decoder in dict.fromkeys(request.decoders):
        asked = parse_request(decoder)
        if not asked.label == asked.name == decoder:
            raise MsbenchError(f"--decoder {decoder}: the grid takes decoders by name alone; --beside takes files and options")
        cells += _plan_decoder(decoder, sorted(set(request.scales)), sorted(set(request.steps)), found, not request.cost_only)
    for one in parse_requests(dict.fromkeys(request.baselines)) if request.baselines else ():
        fit = fit_baseline(one)
        cells.append(SweepCell(one.label, fit.spec.scales, fit.spec.steps, True, fit, None))
    return cells


def _plan_decoder(
    decoder: str, scales: Sequence[int], steps: Sequence[int], found: Sequence[Found], trained: bool
) -> list[SweepCell]:
    cells, refusals, fits = [], [], 0
    for k in scales:
        enough = [n for n in steps if n >= k]
        fit, refused = None, None
        try:
            # Weights do not depend on the number of steps, so that one look per K does.
            fit = fit_weights(decoder, k, enough[-1], found, trained) if enough else None
        except UnknownNameError:
            raise
        except MsbenchError as error:
            if any((one.decoder, one.scales) == (decoder, k) for one in found):
                raise
            refused = str(error)
            refusals.append(refused)
        fits += fit is not None
        for n in steps:
            too_few = f"{n} steps cannot cover {k} scales" if n < k else None
            skipped = too_few or refused
            cells.append(SweepCell(decoder, k, n, False, None if skipped else fit, skipped))
    if refusals and not fits:
        raise MsbenchError(f"{decoder} fits no cell of this grid ({refusals[0]}); --beside takes decoders as they ship")
    return cells
