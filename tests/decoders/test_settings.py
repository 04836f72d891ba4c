"""Settings from the command line: every type of field, and one clear line for what does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pytest

from decoders.denoiser import DenoiserConfig
from decoders.settings import Positive, Share, Width, apply_settings, check_settings, checked
from decoders.training.config import TrainConfig
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
    widths: tuple[Width, ...] = (4, 8)
    """list"""
    limit: Positive | None = 2.0
    """may be absent"""
    share: Share = 0.5
    """within a range"""


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
    assert apply_settings("denoiser", DenoiserConfig(), ["denoiser.widths=96,8"]).widths == (96, 8)
    with pytest.raises(MsbenchError, match="at most 16 items"):
        apply_settings("denoiser", DenoiserConfig(), [f"denoiser.depths={','.join('1' * 17)}"])
    assert apply_settings("train", TrainConfig(), ["train.learning_rate=1e-3"]).learning_rate == 1e-3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("c.count=2.5", r"c\.count=2\.5: input should be a valid integer"),
        ("c.rate=fast", "should be a valid number"),
        ("c.on=maybe", "should be a valid boolean"),
        ("c.kind=tow", "should be 'one' or 'two'"),
        ("c.widths=8,x", "1: input should be a valid integer.*got 'x'"),
        ("c.share=nan", r"c\.share=nan: input should be"),
        ("c.share=1.5", "less than or equal to 1"),
        ("c.limit=-1", "greater than 0"),
        ("c.width=0", "greater than or equal to 1"),
        ("c.widths=8,0", "greater than or equal to 1"),
        ("c.count=", "expected group.field=value"),
        ("count=3", "expected group.field=value"),
        ("c.count", "expected group.field=value"),
    ],
)
def test_a_value_that_does_not_fit_is_named(setting: str, words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        apply_settings("c", Config(), [setting])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(share=math.nan), r"c\.share=nan"),
        (Config(widths=(3, -8)), r"c\.widths=\(3, -8\)"),
        (Config(limit=1e20), "less than or equal"),
        (Config(count="8"), "valid integer"),  # type: ignore[arg-type]
        (Config(count=True), "valid integer"),
    ],
)
def test_a_whole_config_is_held_to_its_types_and_ranges(config: Config, words: str) -> None:
    assert checked("c", Config(limit=None)) == Config(limit=None)
    with pytest.raises(MsbenchError, match=words):
        checked("c", config)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'count'"):
        apply_settings("c", Config(), ["c.counts=3"])
    with pytest.raises(UnknownNameError, match="Did you mean 'denoiser'"):
        check_settings(["denoisr.widths=3"], ["denoiser", "train"])
    check_settings(["denoiser.widths=3"], ["denoiser", "train"])
