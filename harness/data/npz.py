"""Samples in one `.npz`, as ADM's sampling scripts write them: the array `arr_0`, uint8 [N, H, W, 3], taken in its order."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.sources import check_size
from harness.errors import MsbenchError, plugin_boundary

ARRAY = "arr_0"


@dataclass(frozen=True, slots=True)
class NpzSource:
    """The images of one array, each given as a PPM file, so that they go the way of all files."""

    pixels: NDArray[np.uint8]
    """[N, H, W, 3]"""

    @property
    def names(self) -> list[str]:
        """`000000.ppm`, …, in the array's order, which is that of the names too."""
        digits = max(6, len(str(len(self.pixels))))
        return [f"{index:0{digits}}.ppm" for index in range(len(self.pixels))]

    def read(self, name: str) -> bytes:
        """One image as a PPM file; raises OSError where it is too large."""
        image = self.pixels[int(name.partition(".")[0])]
        check_size(image.nbytes)
        header = f"P6 {image.shape[1]} {image.shape[0]} 255\n".encode()
        return header + bytes(image.data)


def open_npz(path: Path) -> NpzSource:
    """Open the samples; an array that was stored uncompressed stays on disk until it is asked for. Nothing is unpickled.

    Raises:
        MsbenchError: not an `.npz`, no `arr_0` in it, or that is not uint8 [N, H, W, 3].
    """
    with plugin_boundary(str(path), "reading it as .npz (write it again)"):
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{ARRAY}.npy") as stream:
                stored = archive.getinfo(f"{ARRAY}.npy")
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(stream)
                header = stream.tell()
            if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
                raise MsbenchError(f"{path}: {ARRAY} is {dtype} {list(shape)}, wanted uint8 [N, H, W, 3]")
            if fortran or stored.compress_type != zipfile.ZIP_STORED:
                with np.load(path, allow_pickle=False) as arrays:
                    return NpzSource(arrays[ARRAY])
            with path.open("rb") as file:
                file.seek(stored.header_offset + 26)  # where a local header holds the lengths of its name and its extra field
                lengths = np.frombuffer(file.read(4), "<u2")
            start = stored.header_offset + 30 + int(lengths.sum()) + header
            return NpzSource(np.memmap(path, np.uint8, "r", start, shape))
        except KeyError as error:
            raise MsbenchError(f"{path} holds no array {ARRAY}: save the samples by np.savez(path, samples)") from error
