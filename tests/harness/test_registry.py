"""Decoders by name: built-ins load, plug-ins plug in, failures name the culprit."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch

from harness import registry
from harness.decoder import Decoder, DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError, UnknownNameError
from harness.registry import checked_spec

SPEC = DecoderSpec("plug", 1, None, 0, 1, 0, None, None, "nothing")


class Plug:
    spec = SPEC

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def decode(self, latents: torch.Tensor, noise: NoiseSource) -> torch.Tensor:
        return latents


def plug(options: DecoderOptions) -> Decoder:
    return Plug()


def not_a_decoder(options: DecoderOptions) -> object:
    return object()


def install(monkeypatch: pytest.MonkeyPatch, name: str, *values: str) -> None:
    points = EntryPoints([EntryPoint(name, value, registry.GROUP) for value in values])
    monkeypatch.setattr(registry, "entry_points", lambda group: points)


def test_every_built_in_factory_imports() -> None:
    for entry in registry.decoder_entries().values():
        assert callable(registry.load_factory(entry))


def test_plug_in_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "plug", f"{__name__}:plug")
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    assert registry.decoder_entries()["plug"].target.endswith(":plug")
    assert registry.build_decoder("plug", DecoderOptions()).spec is SPEC


def test_plug_in_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "vae", "elsewhere:vae")
    assert registry.decoder_entries()["vae"].origin == "msbench"
    (line,) = registry.name_clashes(["vae", "jpeg"])
    assert line == "decoder vae: unknown distribution's plug-in (elsewhere:vae) is not used: msbench has the name"
    assert registry.name_clashes(["jpeg"]) == []


def test_the_second_plug_in_of_a_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "plug", "one:plug", "two:plug")
    assert registry.decoder_entries()["plug"].target == "one:plug"
    (line,) = registry.name_clashes(["plug"])
    assert "(two:plug) is not used: unknown distribution has the name" in line


def test_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "broken", "no_such_module:make")
    with pytest.raises(MsbenchError, match=r"broken.*no_such_module"):
        registry.build_decoder("broken", DecoderOptions())


def test_what_is_no_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "hollow", f"{__name__}:not_a_decoder")
    with pytest.raises(MsbenchError, match="lacks spec, encode or decode"):
        registry.build_decoder("hollow", DecoderOptions())


def test_unknown_name_suggests() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'diffusion'"):
        registry.build_decoder("difusion", DecoderOptions())


def test_a_plug_in_that_leaves_on_import_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "leaves_on_import.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    install(monkeypatch, "leaver", "leaves_on_import:make")
    with pytest.raises(MsbenchError, match=r"decoder leaver of .*: loading leaves_on_import:make raised SystemExit: 0"):
        registry.build_decoder("leaver", DecoderOptions())


def test_what_a_spec_says_of_its_training_is_checked() -> None:
    fine = replace(SPEC, flow="pyramid", objective="paired", training_pflops=0.2, start_pflops=0.0)
    assert checked_spec("plug", fine) is fine
    for name, value, wanted in (
        ("training_pflops", "0.2", "number"),
        ("start_pflops", -1.0, "greater"),
        ("objective", 3, "string"),
    ):
        with pytest.raises(MsbenchError, match=f"its spec has {name} = {value!r}: .*{wanted}"):
            checked_spec("plug", replace(SPEC, **{name: value}))  # type: ignore[arg-type]
