"""Modes change how a decoder runs, never what it computes. CUDA's part is played by a fake that replays into one buffer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decoders.flow import FlowName
from decoders.models import DiffusionDecoder
from harness.cost import modes
from harness.cost.cost import CostProtocol, measure_cost
from harness.cost.flops import count_flops
from harness.cost.modes import Captured, CompiledDecoder, GraphedDecoder, UnsupportedModeError, eager_of, in_mode, parse_mode
from harness.decoder import Compilable, Decoder, DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import UnknownNameError
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.config import RunConfig
from harness.run.runner import evaluate

CPU = torch.device("cpu")


class Plain:
    """A decoder without the hook: latents plus a draw."""

    spec = DecoderSpec("plain", 1, 1, 0, 1, 0, None, None, "nothing")

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        return latents + noise.normal(tuple(latents.shape[1:]), 0)


def random_decoder(flow: FlowName, scales: int, steps: int) -> DiffusionDecoder:
    """Random weights in the output layers too, which start at zero."""
    name = "ms-diffusion" if flow == "pyramid" else "ms-diffusion-cascade"
    decoder = build_decoder(name, DecoderOptions(weights="random", scales=scales, steps=steps))
    assert isinstance(decoder, DiffusionDecoder)
    generator = torch.Generator().manual_seed(1)
    for parameter in decoder.denoiser.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return decoder


def noise(*keys: str) -> SampleNoise:
    return SampleNoise.for_samples(0, keys)


def latents(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn((count, 16, 2, 2), generator=torch.Generator().manual_seed(seed))


def test_names() -> None:
    assert [parse_mode(name) for name in ("eager", "compile", "cudagraph")] == list(modes.MODES)
    with pytest.raises(UnknownNameError, match="Did you mean 'cudagraph'"):
        parse_mode("cudagraphs")


def test_eager_is_the_decoder_itself_and_graphs_need_cuda() -> None:
    plain = Plain()
    assert in_mode(plain, "eager", CPU) is plain
    with pytest.raises(UnsupportedModeError, match="CUDA device, not cpu"):
        in_mode(plain, "cudagraph", CPU)


class Recorder:
    """A compiler that compiles nothing and counts."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: object) -> Any:
            self.calls.append(function.__name__)
            return function(*args)

        return counted


@pytest.mark.parametrize(("scales", "steps"), [(1, 3), (3, 5)])
def test_a_step_is_compiled_not_the_loop(scales: int, steps: int) -> None:
    decoder = random_decoder("cascade", scales, steps)
    assert isinstance(decoder, Compilable)
    recorder = Recorder()
    z = torch.randn((1, 16, 4, 4), generator=torch.Generator().manual_seed(0))
    source = noise("a")
    output = CompiledDecoder(decoder, recorder).decode(z, source)
    assert recorder.calls.count("project") == 1
    assert recorder.calls.count("integrate") == steps
    assert recorder.calls.count("_normal") == scales
    assert source.used
    recorder.calls.clear()
    assert torch.equal(decoder.decode(z, noise("a")), output)
    assert not recorder.calls  # the decoder that was wrapped runs as before


def test_one_step_a_scale_is_compiled_whole() -> None:
    """Nothing is gained by compiling its parts alone: no part is called twice."""
    decoder, recorder = random_decoder("pyramid", 3, 3), Recorder()
    z = torch.randn((1, 16, 4, 4), generator=torch.Generator().manual_seed(0))
    output = CompiledDecoder(decoder, recorder).decode(z, noise("a"))
    assert recorder.calls == ["sample", *3 * ["_normal"]]
    assert torch.equal(decoder.decode(z, noise("a")), output)


def test_the_autoencoder_compiles_its_network() -> None:
    decoder = build_decoder("vae", DecoderOptions(weights="random"))
    recorder = Recorder()
    z = latents()
    assert torch.equal(CompiledDecoder(decoder, recorder).decode(z, noise("a", "b")), decoder.decode(z, noise("a", "b")))
    assert recorder.calls == ["decode"]


def test_a_decoder_without_the_hook_is_compiled_whole() -> None:
    recorder = Recorder()
    z = latents()
    output = CompiledDecoder(Plain(), recorder).decode(z, noise("a", "b"))
    assert recorder.calls == ["decode", "_normal"]
    assert torch.equal(output, Plain().decode(z, noise("a", "b")))


def test_one_graph_a_scale_without_a_break() -> None:
    """`fullgraph` raises at a break; the count shows that no step is compiled twice, and one step a scale is one graph."""
    torch.compiler.reset()
    seen: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        seen.append(graph)
        return graph.forward

    compiler = partial(torch.compile, backend=backend, fullgraph=True, dynamic=False)
    decoder = random_decoder("pyramid", 2, 5)
    z = torch.randn((1, 16, 4, 4), generator=torch.Generator().manual_seed(0))
    mine = CompiledDecoder(decoder, compiler)  # type: ignore[arg-type]
    assert torch.allclose(mine.decode(z, noise("a")), decoder.decode(z, noise("a")), atol=1e-6)
    assert len(seen) == 1 + 2 + 2  # the projection, a step a scale, a draw a scale
    mine.decode(z, noise("b"))
    assert len(seen) == 5
    one_step = random_decoder("pyramid", 3, 3)
    mine = CompiledDecoder(one_step, compiler)  # type: ignore[arg-type]
    assert torch.allclose(mine.decode(z, noise("a")), one_step.decode(z, noise("a")), atol=1e-6)
    mine.decode(z, noise("b"))
    assert len(seen) == 6


@pytest.mark.slow
def test_compiled_for_real() -> None:
    torch.compiler.reset()
    plain, z = Plain(), torch.randn((2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    mine = in_mode(plain, "compile", CPU)
    assert torch.allclose(mine.decode(z, noise("a", "b")), plain.decode(z, noise("a", "b")), atol=1e-5)


def fake_capture(log: list[str]) -> Callable[[Callable[[], Tensor]], Captured]:
    """Runs the call again at each replay and writes into the one output buffer, as a graph does."""

    def capture(call: Callable[[], Tensor]) -> Captured:
        log.append("capture")
        output = call()

        def replay() -> None:
            log.append("replay")
            output.copy_(call())

        return Captured(replay, output)

    return capture


def test_a_graph_is_recorded_once_a_shape_and_fed_through_its_buffers() -> None:
    log: list[str] = []
    decoder = random_decoder("cascade", 2, 3)
    mine: Decoder = GraphedDecoder(decoder, fake_capture(log))
    first, second = latents(seed=0), latents(seed=1)
    one = mine.decode(first, noise("a", "b"))
    two = mine.decode(second, noise("c", "d"))
    assert log == ["capture", "replay", "replay"]
    assert torch.equal(one, decoder.decode(first, noise("a", "b")))  # not overwritten by the second replay
    assert torch.equal(two, decoder.decode(second, noise("c", "d")))
    assert not torch.allclose(two, decoder.decode(second, noise("a", "b")), atol=1e-3)
    mine.decode(latents(1), noise("a"))
    assert log[3:] == ["capture", "replay"]


def test_a_graph_says_whether_noise_was_drawn() -> None:
    for decoder, draws in ((Plain(), True), (build_decoder("vae", DecoderOptions(weights="random")), False)):
        mine = GraphedDecoder(decoder, fake_capture([]))
        for _ in range(2):
            source = noise("a", "b")
            mine.decode(latents(), source)
            assert source.used == draws


def test_other_noise_cannot_enter_a_graph() -> None:
    class Zeros:
        def normal(self, shape: object, draw: int) -> Tensor:
            return torch.zeros(())

    with pytest.raises(UnsupportedModeError, match="not a Zeros"):
        GraphedDecoder(Plain(), fake_capture([])).decode(latents(), Zeros())


def test_cost_counts_the_eager_decoder() -> None:
    """Inside compiled functions nothing is counted, so a mode must not change the GFLOPs."""
    decoder = random_decoder("cascade", 1, 2)
    protocol = CostProtocol(batch_sizes=(1,), min_calls=1, max_calls=1, max_seconds=0.01)
    z = latents(1)

    def blind(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object) -> Any:
            with torch.utils._python_dispatch._disable_current_modes():
                return function(*args)

        return call

    compiled = CompiledDecoder(decoder, blind)
    assert count_flops(compiled, z, noise("a")) is None
    assert eager_of(compiled) is decoder
    assert eager_of(decoder) is decoder
    cost = measure_cost(compiled, z, 0, protocol, CPU)
    assert cost.gflops == count_flops(decoder, z, noise("a"))
    assert [cell.mode for cell in cost.cells] == ["compile"]


def test_a_run_refuses_a_mode_its_device_lacks(tmp_path: Path) -> None:
    config = RunConfig(("identity",), mode="cudagraph", max_samples=1, output_dir=tmp_path / "run")
    with pytest.raises(UnsupportedModeError, match="use eager or compile"):
        evaluate(config)
    assert not (tmp_path / "run").exists()
