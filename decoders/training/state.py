"""What a training run saves: its state, refused where it is another run's, and the averaged weights of an earlier step."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import MsbenchError
from harness.files import atomic_path

STATE = "state.pt"
"""What a run needs to go on."""
SNAPSHOT = "snapshot.pt"
"""Averaged weights of an earlier step, where `TrainConfig.snapshot` asks for them."""


def save_snapshot(folder: Path, average: nn.Module, step: int) -> None:
    """Write the averaged weights as they are now, unless an earlier step has."""
    path = folder / SNAPSHOT
    if not path.exists():
        _save({"average": average.state_dict(), "step": step}, path)


def load_snapshot(folder: Path) -> dict[str, Tensor] | None:
    """The averaged weights that `save_snapshot` wrote, on the CPU; None where there are none.

    Raises:
        MsbenchError: they are damaged.
    """
    path = folder / SNAPSHOT
    if not path.exists():
        return None
    average = _read(path).get("average")
    if not isinstance(average, dict):
        raise MsbenchError(f"{path}: holds no averaged weights; start afresh in another folder")
    return average


def save_state(path: Path, state: dict[str, Any], identity: str, world: int) -> None:
    """Write `state` (tensors and plain values), with whose it is and the number of processes that train it."""
    _save({**state, "identity": identity, "world": world}, path)


def _save(content: dict[str, Any], path: Path) -> None:
    """Raises `MsbenchError` where there is no room; what stood there before stays."""
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # all that torch makes of a disk that takes no more
            raise MsbenchError(f"{path.parent} is full: make room, then --resume") from error


def load_state(path: Path, identity: str, world: int) -> dict[str, Any]:
    """The state that `save_state` wrote, on the CPU.

    Raises:
        MsbenchError: missing or unreadable, saved by a run of another identity, or by another number of processes.
    """
    state = _read(path)
    saved = state.get("identity", "")
    if saved != identity:
        raise MsbenchError(
            f"{path}: saved by another run ({saved or 'unnamed'}, this one is {identity or 'unnamed'}); "
            "give the settings it began with, or start afresh in another folder"
        )
    if state.get("world", 1) != world:
        raise MsbenchError(f"{path}: {state['world']} processes trained this run, not {world}; start as many to resume it")
    return state


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise MsbenchError(f"{path}: no saved state to resume; begin without --resume") from error
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise MsbenchError(f"{path}: not a readable run state; start afresh in another folder") from error
    if not isinstance(state, dict):
        raise MsbenchError(f"{path}: not a run state but a {type(state).__name__}; start afresh in another folder")
    return state
