"""The counter against formulas, operation by operation; what it misses; bytes against sums worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.cost.flops import Work, count_flops, count_work
from harness.decoder import DecoderSpec, NoiseSource
from harness.noise import SampleNoise


class FakeDecoder:
    """Runs `function` on the latents."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.spec = DecoderSpec("fake", 1, 3, 1, 1, 0, None, None, "nothing")

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        return self.function(latents)


def noise(count: int = 1) -> SampleNoise:
    return SampleNoise.for_samples(0, [str(index) for index in range(count)])


def work_of(function: Callable[[Tensor], Tensor], *shape: int) -> Work:
    return count_work(FakeDecoder(function), torch.zeros(shape), noise(shape[0]))


@pytest.mark.parametrize(
    ("layer", "shape", "multiply_adds", "bias_adds"),
    [
        # kernel area × input channels of a group × output elements
        (nn.Conv2d(6, 8, 3, padding=1), (1, 6, 10, 12), 9 * 6 * 8 * 10 * 12, 8 * 10 * 12),
        (nn.Conv2d(6, 8, 3, stride=2, padding=1), (1, 6, 10, 12), 9 * 6 * 8 * 5 * 6, 8 * 5 * 6),
        (nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False), (1, 6, 10, 12), 9 * 6 * 8 * 10 * 12, 0),
        (nn.Conv2d(6, 8, 3, padding=1, groups=2, bias=False), (1, 6, 10, 12), 9 * 3 * 8 * 10 * 12, 0),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6), (1, 6, 10, 12), 25 * 1 * 6 * 10 * 12, 6 * 10 * 12),
        # kernel area × output channels of a group × input elements
        (nn.ConvTranspose2d(6, 8, 4, stride=2, padding=1, bias=False), (1, 6, 10, 12), 16 * 8 * 6 * 10 * 12, 0),
        (nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2), (1, 6, 10, 12), 4 * 4 * 6 * 10 * 12, 8 * 20 * 24),
        (nn.Linear(6, 8), (1, 10, 6), 10 * 6 * 8, 10 * 8),
        (nn.Linear(6, 8, bias=False), (1, 10, 6), 10 * 6 * 8, 0),
    ],
)
def test_layers_count_what_their_formulas_say(
    layer: nn.Module, shape: tuple[int, ...], multiply_adds: int, bias_adds: int
) -> None:
    work = work_of(layer, *shape)
    assert work.gflops == pytest.approx(2 * multiply_adds / 1e9, rel=1e-12)
    assert work.elementwise_gflops == pytest.approx(bias_adds / 1e9, rel=1e-12)
    assert count_flops(FakeDecoder(layer), torch.zeros(shape), noise()) == work.gflops


def test_a_decode_that_takes_gradients_of_grouped_layers_counts_each_group_apart() -> None:
    layer = nn.Conv2d(6, 6, 5, padding=2, groups=6).requires_grad_(False)

    def ascend(latents: Tensor) -> Tensor:
        with torch.enable_grad():
            x = latents.clone().requires_grad_()
            return torch.autograd.grad(layer(x).square().sum(), x)[0]

    assert work_of(ascend, 1, 6, 10, 12).gflops == pytest.approx(2 * 2 * 25 * 6 * 10 * 12 / 1e9, rel=1e-12)


def test_attention_is_two_products_and_its_softmax_is_estimated() -> None:
    heads, length, width = 2, 16, 8
    work = work_of(lambda z: functional.scaled_dot_product_attention(z, z, z), 1, heads, length, width)
    assert work.gflops == pytest.approx(2 * 2 * heads * length * length * width / 1e9, rel=1e-12)
    assert work.elementwise_gflops >= heads * length * length / 1e9


def test_a_fused_transformer_layer_is_counted_as_its_products() -> None:
    width, hidden, length = 16, 32, 8
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).eval().requires_grad_(False)
    products = length * (4 * width**2 + 2 * width * hidden) + 2 * length**2 * width
    assert work_of(layer, 1, length, width).gflops == pytest.approx(2 * products / 1e9, rel=1e-12)
    assert torch.backends.mha.get_fastpath_enabled()


def test_inference_mode_inside_a_decoder_hides_nothing() -> None:
    layer = nn.Linear(6, 8)

    def decode(latents: Tensor) -> Tensor:
        return functional.interpolate(functional.silu(layer(latents)), scale_factor=2, mode="nearest")

    def inferring(latents: Tensor) -> Tensor:
        with torch.inference_mode():
            return decode(latents)

    work = work_of(inferring, 1, 10, 6)
    assert work.gflops == pytest.approx(2 * 10 * 6 * 8 / 1e9, rel=1e-12)
    assert work.elementwise_gflops == pytest.approx(2 * 10 * 8 / 1e9, rel=1e-12)
    assert work == work_of(decode, 1, 10, 6)


def test_what_the_counter_misses_is_estimated_apart() -> None:
    elements = 3 * 8 * 8

    def element_wise(latents: Tensor) -> Tensor:
        return torch.relu(functional.silu(latents) * latents)  # three operations

    assert work_of(element_wise, 1, 3, 8, 8) == Work(None, 3 * elements / 1e9, (2 + 3 + 2) * 4 * elements / 1e9, 0.0)
    # A reduction costs what it reads; moving, padding, casting and whole numbers cost no FLOPs.
    assert work_of(lambda z: z.mean(), 1, 3, 8, 8).elementwise_gflops == elements / 1e9
    assert work_of(lambda z: functional.avg_pool2d(z, 2), 1, 3, 8, 8).elementwise_gflops == elements / 1e9
    moves: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda z: torch.cat([z, z]).contiguous(),
        lambda z: functional.pad(z, (1, 1)).permute(0, 2, 3, 1).contiguous(),
        lambda z: functional.interpolate(z, scale_factor=2, mode="nearest"),
        lambda z: z.to(torch.bfloat16),
        lambda z: torch.arange(64) * 3,
    )
    for moved in moves:
        work = work_of(moved, 1, 3, 8, 8)
        assert work.elementwise_gflops == 0.0
        assert work.activation_gb > 0.0


def test_bytes_are_those_of_the_tensors_an_operation_takes_and_gives() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    parameters = 4 * (8 * 3 * 9 + 8)
    work = work_of(conv, 1, 3, 16, 16)
    assert work.activation_gb == pytest.approx(4 * (3 + 8) * 256 / 1e9, rel=1e-12)
    assert work.weight_gb == pytest.approx(parameters / 1e9, rel=1e-12)
    # Three calls read the weights three times; a batch of two reads them no oftener than one image does.
    thrice = work_of(lambda z: conv(conv(conv(z)[:, :3])[:, :3]), 1, 3, 16, 16)
    assert thrice.weight_gb == pytest.approx(3 * work.weight_gb, rel=1e-12)
    two = work_of(conv, 2, 3, 16, 16)
    assert (two.activation_gb, two.weight_gb) == pytest.approx((work.activation_gb, work.weight_gb), rel=1e-12)
    assert work.gigabytes(4) == pytest.approx(work.activation_gb + work.weight_gb / 4, rel=1e-12)


def test_views_move_nothing_and_an_expanded_tensor_is_read_once() -> None:
    assert work_of(lambda z: z.view(1, -1).t().unsqueeze(0).expand(5, -1, -1), 1, 3, 8, 8).activation_gb == 0.0
    grown = work_of(lambda z: z[:, :, :1, :1].expand(-1, -1, 64, 64) + 0.0, 1, 3, 1, 1)
    assert grown.activation_gb == pytest.approx(4 * (3 + 3 * 64 * 64) / 1e9, rel=1e-12)


def test_an_operation_in_place_reads_and_writes() -> None:
    assert work_of(lambda z: torch.zeros(64).add_(1.0), 1, 1).activation_gb == pytest.approx(4 * 64 * 3 / 1e9, rel=1e-12)


def tokens(latents: Tensor) -> Tensor:
    """64 tokens of 3 numbers, as the decoders of public reports make them."""
    return functional.adaptive_avg_pool2d(latents, 8).flatten(2).transpose(1, 2)


def flash(latents: Tensor) -> Tensor:
    """Attention of 4 heads of 16 numbers whose kernel the decoder chooses itself."""
    query = nn.Linear(3, 64, bias=False)(tokens(latents)).view(1, 64, 4, 16).transpose(1, 2)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return functional.scaled_dot_product_attention(query, query, query)


def lstm(latents: Tensor) -> Tensor:
    return nn.LSTM(64, 64, batch_first=True)(nn.Linear(3, 64, bias=False)(tokens(latents)))[0]  # type: ignore[no-any-return]


def int8(latents: Tensor) -> Tensor:
    network = nn.Sequential(nn.Linear(3, 64, bias=False), nn.Linear(64, 64, bias=False))
    return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)(tokens(latents))  # type: ignore[no-any-return]


def int8_convolution(latents: Tensor) -> Tensor:
    from torch.ao.nn import quantized

    small = functional.adaptive_avg_pool2d(latents, 8)
    return quantized.Conv2d(3, 8, 3, padding=1)(torch.quantize_per_tensor(small, 0.1, 0, torch.quint8)).dequantize()


def two_way_lstm(latents: Tensor) -> Tensor:
    return nn.LSTM(3, 8, num_layers=2, bidirectional=True)(tokens(latents))[0]  # type: ignore[no-any-return]


_PROJECTION = 2 * 64 * 3 * 64  # 64 tokens from 3 to 64 numbers


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (flash, _PROJECTION + 2 * 2 * 4 * 64 * 64 * 16),
        (lstm, _PROJECTION + 2 * 64 * (4 * 64 * 64 + 4 * 64 * 64)),
        (int8, _PROJECTION + 2 * 64 * 64 * 64),
        (int8_convolution, 2 * 8 * 64 * 27),
        (two_way_lstm, 2 * 64 * 2 * (4 * 8 * (3 + 8) + 4 * 8 * (16 + 8))),
        (lambda z: nn.GRU(3, 8)(tokens(z))[0], 2 * 64 * 3 * 8 * (3 + 8)),
        (lambda z: z[0, 0] @ torch.ones(256), 2 * 256 * 256),
    ],
)
def test_operations_without_a_formula_of_torchs_count_too(function: Callable[[Tensor], Tensor], flops: int) -> None:
    """The first three came out at 2.3 %, 0.6 % and 0 % of this: 1,073,152, 4,218,880 and 548,864 FLOPs."""
    work = work_of(function, 1, 3, 256, 256)
    assert (work.gflops, work.uncounted) == (pytest.approx(flops / 1e9, rel=1e-12), ())


@torch.library.custom_op("msbench_test::own_kernel", mutates_args=())
def own_kernel(values: Tensor) -> Tensor:
    return values * 2


def test_what_may_be_matrix_work_and_has_no_formula_is_named() -> None:
    assert work_of(lambda z: torch.fft.fft2(z).real, 1, 3, 8, 8).uncounted == ("aten::_fft_c2c",)
    assert work_of(lambda z: nn.Bilinear(8, 8, 4)(z, z), 1, 3, 8, 8).uncounted == ("aten::_trilinear",)
    assert work_of(own_kernel, 1, 3, 8, 8).uncounted == ("msbench_test::own_kernel",)
    everyday = [
        nn.GroupNorm(3, 3),
        nn.Softmax(dim=1),
        lambda z: functional.interpolate(z, scale_factor=2, mode="bilinear"),
        lambda z: torch.linalg.vector_norm(z, dim=1).to(torch.bfloat16),
        lambda z: functional.pixel_shuffle(z.repeat(1, 4, 1, 1), 2).cumsum(-1),
    ]
    for function in everyday:
        assert work_of(function, 1, 3, 8, 8).uncounted == ()
