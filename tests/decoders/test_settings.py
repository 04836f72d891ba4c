"""Settings from the command line: every type of field, and one clear line for what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from decoders.denoiser import DenoiserConfig
from decoders.settings import apply_settings, check_settings
from decoders.training.trainer import TrainConfig
from harness.errors import MsbenchError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Config:
    """One field of every kind."""

    count: int = 1
    """whole"""
    rate: float = 0.5
    """real"""
    on: bool = False
    """switch"""
    name: str = "a"
    """free text"""
    kind: Literal["one", "two"] = "one"
    """choice"""
    widths: tuple[int, ...] = (4, 8)
    """list"""
    limit: float | None = 2.0
    """may be absent"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("c.count=3", Config(count=3)),
        ("c.rate=1e-3", Config(rate=1e-3)),
        ("c.rate=2", Config(rate=2.0)),
        ("c.on=True", Config(on=True)),
        ("c.name=x=y", Config(name="x=y")),
        ("c.kind=two", Config(kind="two")),
        ("c.widths=16, 32,64", Config(widths=(16, 32, 64))),
        ("c.widths=16", Config(widths=(16,))),
        ("c.width=16", Config(widths=(16, 16))),
        ("c.limit=none", Config(limit=None)),
        ("c.limit=7", Config(limit=7.0)),
        ("other.count=3", Config()),
    ],
)
def test_values_are_read_as_their_field_s_type(setting: str, expected: Config) -> None:
    assert apply_settings("c", Config(), [setting]) == expected


def test_later_settings_win_and_all_are_applied() -> None:
    assert apply_settings("c", Config(), ["c.count=2", "c.on=true", "c.count=5"]) == Config(count=5, on=True)


def test_real_configs_take_settings() -> None:
    assert apply_settings("denoiser", DenoiserConfig(), ["denoiser.width=96"]).widths == (96, 96, 96)
    assert apply_settings("train", TrainConfig(), ["train.learning_rate=1e-3"]).learning_rate == 1e-3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("c.count=2.5", "'2.5' is not a whole number"),
        ("c.rate=fast", "'fast' is not a number"),
        ("c.on=1", "'1' is not true or false"),
        ("c.widths=8,x", "'x' is not a whole number"),
        ("c.count=", "expected group.field=value"),
        ("count=3", "expected group.field=value"),
        ("c.count", "expected group.field=value"),
    ],
)
def test_a_value_that_does_not_fit_is_named(setting: str, words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        apply_settings("c", Config(), [setting])


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'count'"):
        apply_settings("c", Config(), ["c.counts=3"])
    with pytest.raises(UnknownNameError, match="Did you mean 'two'"):
        apply_settings("c", Config(), ["c.kind=tow"])
    with pytest.raises(UnknownNameError, match="Did you mean 'denoiser'"):
        check_settings(["denoisr.widths=3"], ["denoiser", "train"])
    check_settings(["denoiser.widths=3"], ["denoiser", "train"])
