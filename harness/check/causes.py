"""What a wrong result looks like: causes and remedies, from types, shapes, errors and correlations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

_ATTRIBUTES = ("latent_dist", "latents", "latent", "sample")  # of the outputs that diffusers' models give
_ERRORS = (
    (r"same device|but expected all tensors", "build networks and constants on `options.device`"),
    (r"same dtype|scalar type|Input type|bias type|expected .* dtype", "cast inputs to the network's dtype, outputs back"),
    (r"cannot be multiplied|size of tensor|input.* channels", "the network wants another layout than images or latents have"),
    (r"nference|requires grad", "the call runs under torch.inference_mode(): take no gradients, clone before writing"),
)
_SURE, _CLEARLY = 0.5, 0.1


def of_type(came: object) -> str:
    """What to return in place of something that is no tensor."""
    found = [name for name in _ATTRIBUTES if hasattr(came, name)]
    if found:
        return f"it has .{found[0]}: return that tensor" + (" (latent_dist.mode())" if found[0] == "latent_dist" else "")
    if isinstance(came, (tuple, list)):
        return "return its tensor alone, as in `return output[0]`"
    return "return one tensor" if came is not None else "its `return` is missing"


def of_shape(came: Sequence[int], wanted: Sequence[int]) -> str:
    """Why a decoder gave images of another shape than [B, 3, H, W], and what to change."""
    batch, channels, height, width = wanted
    if list(came) == [batch, height, width, channels]:
        return "channels come last: return output.permute(0, 3, 1, 2)"
    if list(came) == [channels, height, width]:
        return "the batch dimension is gone: decode every image of the batch, and squeeze nothing"
    if len(came) != 4:
        return "images are [B, 3, H, W]"
    if came[0] != batch:
        return f"a batch of {batch} came back as {came[0]}: decode every image of the batch"
    if came[1] != channels:
        remedy = {1: ": return output.expand(-1, 3, -1, -1)", 4: ", as of RGBA: return output[:, :3]"}.get(came[1], "")
        return f"{came[1]} channels in place of RGB{remedy}"
    return _of_size(came[2] - height, came[3] - width, came[2] / height, came[3] / width)


def _of_size(rows: int, columns: int, taller: float, wider: float) -> str:
    if taller == wider and not 0.67 < taller < 1.5:
        return f"{taller:g} times the size: the decoder's factor is not the encoder's, nor the spec's down_factor"
    if min(rows, columns) >= 0:
        return f"{rows} rows and {columns} columns too many: crop what was padded"
    return f"{-rows} rows and {-columns} columns too few: pad the convolutions, crop nothing"


def of_error(text: str) -> str:
    """What to change after an error that torch raised in a decoder; empty where the error says it all."""
    return next((remedy for pattern, remedy in _ERRORS if re.search(pattern, text)), "")


def in_training(decoder: object) -> str:
    """Names the layers of a decoder's networks that are in training mode where that matters; empty for none."""
    held = [decoder, *getattr(decoder, "__dict__", {}).values()]
    layers = (layer for one in held if isinstance(one, nn.Module) for layer in one.modules() if layer.training)
    wrong = {type(one).__name__ for one in layers if re.search("Dropout|BatchNorm|InstanceNorm|DropPath", type(one).__name__)}
    return f"; {', '.join(sorted(wrong))} in training mode: call .eval() on the network" if wrong else ""


def of_order(whole: Tensor, alone: Tensor) -> str:
    """Whether images of a batch are those of smaller batches in another order: uint8 [B, 3, H, W] twice."""
    apart = (whole[:, None].float() - alone[None].float()).abs().mean(dim=(2, 3, 4))
    moved = apart.argmin(dim=0).tolist() != list(range(len(alone))) and float(apart.min(dim=0).values.max()) < 1.0
    return "its images come back in another order: keep the order of the batch" if moved else ""


def of_content(images: Tensor, output: Tensor) -> str:
    """What was done to channels or axes, where another arrangement of `output` is clearly more like `images`; "" for nothing.

    Likeness is the mean correlation of brightness and of colour (channels less their mean), over all pixels.

    Args:
        images: what was encoded, float [B, 3, H, W].
        output: what was decoded, likewise.
    """
    names = "RGB"
    others = {"inverted: return -output": -output, "mirrored: return output.flip(3)": output.flip(3)}
    others["upside down: return output.flip(2)"] = output.flip(2)
    for order in list(permutations(range(3)))[1:]:
        came = "".join(names[order.index(channel)] for channel in range(3))
        others[f"in channels {came}, not RGB: return output[:, {list(order)}]"] = output[:, list(order)]
    plain = _likeness(images, output)
    best = max(others, key=lambda name: _likeness(images, others[name]))
    likeness = _likeness(images, others[best])
    if likeness > max(_SURE, plain + _CLEARLY):
        return f"images look {best} (correlation with the input {likeness:.2f}, as they are {plain:.2f})"
    if plain < _SURE / 2:
        return f"images do not look like the input (correlation {plain:.2f}): are the weights trained and loaded?"
    return ""


def _likeness(images: Tensor, output: Tensor) -> float:
    pairs = [(x.mean(dim=1), x - x.mean(dim=1, keepdim=True)) for x in (images.double(), output.double())]
    both = [torch.stack([one.flatten(), other.flatten()]) for one, other in zip(*pairs, strict=True)]
    return sum(float(torch.corrcoef(pair)[0, 1].nan_to_num()) for pair in both) / 2
