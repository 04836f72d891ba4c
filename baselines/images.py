"""`images:DIR`: reconstructions that were finished elsewhere, by whatever made them; a folder, a tar or an `.npz`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from baselines.options import refuse_network_options, spec_of
from harness.data.folder import list_source
from harness.data.images import ImageError, decode_unchanged
from harness.data.pairs import pair_by_name, pair_in_order
from harness.data.sources import is_image_name, printable
from harness.decoder import DecoderOptions, FinishedImage, NoiseSource
from harness.errors import MsbenchError, UnknownNameError

MATCHES = ("name", "order")
_NAMED = 3  # names in a warning
_JPEG = b"\xff\xd8\xff"


class FinishedImages:
    """Finished images, a `harness.decoder.Finished`. `encode` and `decode` raise `MsbenchError`.

    Args:
        name: what it was asked for as.
        path: the folder, tar or `.npz`.
        by_order: match images by order instead of by name.

    Raises:
        MsbenchError: nothing there that could be read, or no image in it.
    """

    def __init__(self, name: str, path: Path, by_order: bool) -> None:
        self.spec = spec_of(name, 1, None, trained_on="unknown: finished images")
        self._source, names, left_out = list_source(path, name)
        self._names = [one for one in names if is_image_name(one)]
        if not self._names:
            raise MsbenchError(f"{name}: no image files ({len(names)} files of other kinds) {left_out}".strip())
        self._by_order = by_order
        self._paired: dict[str, str] = {}

    def match(self, samples: Mapping[str, str]) -> list[str]:
        """See `Finished.match`."""
        pair, name = pair_in_order if self._by_order else pair_by_name, self.spec.name
        self._paired = pair(samples, self._names, name)
        missing = [samples[key] for key in samples if key not in self._paired]
        spare = sorted({*self._names} - {*self._paired.values()})
        if not self._paired:
            both = f"images {_few(missing)}, reconstructions {_few(spare)}"
            raise MsbenchError(f"{name}: no name in common ({both}); match=order pairs them in the order of their names")
        lines = [f"{len(missing):,} of {len(samples):,} images have no reconstruction and are left out: {_few(missing)}"]
        lines += [f"{len(spare):,} reconstructions belong to no image: {_few(spare)}"]
        return [f"{name}: {line}" for line, names in zip(lines, (missing, spare), strict=True) if names]

    def image(self, key: str) -> FinishedImage:
        """See `Finished.image`."""
        if key not in self._paired:
            raise MsbenchError(f"no reconstruction in {self.spec.name}")
        file = self._paired[key]
        try:
            data = self._source.read(file)
            pixels = decode_unchanged(data)
        except (ImageError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise MsbenchError(f"reconstruction {printable(file)} in {self.spec.name}: {why}") from error
        note = "written as JPEG: what that lost counts as theirs" if data.startswith(_JPEG) else ""
        return FinishedImage(pixels, hashlib.sha256(data).hexdigest(), note)

    def encode(self, images: Tensor) -> Tensor:
        """Raises `MsbenchError`."""
        raise MsbenchError(f"{self.spec.name}: finished images have a quality, but no latents, time or FLOPs; leave it out")

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """Raises `MsbenchError`."""
        return self.encode(latents)


def _few(names: list[str]) -> str:
    return printable(", ".join(names[:_NAMED])) + ", …" * (len(names) > _NAMED)


def images(options: DecoderOptions) -> FinishedImages:
    """Build `images:DIR`, DIR a folder, a tar or an `.npz`, whose images have no names but an order.

    Raises:
        MsbenchError: no DIR, nothing to read there, or an option that only a network has.
        UnknownNameError: `match` is neither name nor order.
    """
    name, path = options.name, Path(os.path.expanduser(options.location))
    if not options.location:
        raise MsbenchError("name the reconstructions: images:DIR, DIR a folder, an uncompressed .tar or an .npz")
    refuse_network_options(name, options)
    match = options.own.get("match", "name")
    if match not in MATCHES:
        raise UnknownNameError("match", match, MATCHES)
    return FinishedImages(name, path, match == "order" or path.suffix == ".npz")
