"""Files of the Hugging Face hub: `hf://OWNER/REPO/FILE.safetensors[@REVISION]` wherever a checkpoint is asked for.

A file is fetched into the hub's cache, with the token in `$HF_TOKEN` where the repository is gated. Only safetensors are taken:
reading them runs no code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType

from harness.errors import MsbenchError, plugin_boundary

_HUB = re.compile(r"^hf:/+")  # a path writes two slashes as one
_FILE = re.compile(r"(\w[\w.-]*/\w[\w.-]*)/([^@\s][^\s]*\.safetensors)(?:@([^@\s]+))?")


def written(place: Path | None) -> Path | str | None:
    """A checkpoint as people write it, with both slashes of `hf://`."""
    return _HUB.sub("hf://", str(place)) if _HUB.match(str(place)) else place


def fetch(place: str, offline: bool = False) -> tuple[str, str]:
    """Where a file lies on this machine now, and its place with the commit as revision.

    A path is both itself, in the first its `~` written out.

    Raises:
        MsbenchError: of the hub, and not to be had: the message says why, and what to do.
    """
    if not _HUB.match(place):
        return os.path.expanduser(place), place
    parts = _FILE.fullmatch(_HUB.sub("", place))
    place = _HUB.sub("hf://", place)
    if parts is None:
        raise MsbenchError(f"{place}: a checkpoint of the hub is hf://OWNER/REPO/FILE.safetensors@REVISION")
    repository, file, revision = parts.groups()
    page = f"https://huggingface.co/{repository}"
    with hub_client(place, page, offline, "give a path, --checkpoint FILE.safetensors") as hub:
        found = hub.hf_hub_download(repository, file, revision=revision, local_files_only=offline)
    commit = Path(found).parents[len(PurePosixPath(file).parts) - 1].name
    return found, f"hf://{repository}/{file}@{commit}"


@contextmanager
def hub_client(what: str, page: str, offline: bool, instead: str) -> Iterator[ModuleType]:
    """`huggingface_hub`, whose refusals become one line about `what`: its page, or what to do `instead`."""
    with plugin_boundary(what, "fetching it"):
        try:
            import huggingface_hub as hub
            from huggingface_hub import errors
        except ImportError as error:
            raise MsbenchError(f"{what}: huggingface_hub is not installed: pip install 'msbench[data]'") from error
        try:
            yield hub
        except errors.RepositoryNotFoundError as error:
            told = f"{what} is gated, private or not there: accept its terms at {page} and set HF_TOKEN"
            raise MsbenchError(told) from error
        except errors.LocalEntryNotFoundError as error:
            told = "--offline is set" if offline else "the hub does not answer"
            raise MsbenchError(f"{what} is not in the hub's cache and {told}: {instead}") from error
        except errors.RevisionNotFoundError as error:
            raise MsbenchError(f"{what}: no such revision; {page}/commits/main lists them") from error
        except errors.EntryNotFoundError as error:
            raise MsbenchError(f"{what}: no such file; {page}/tree/main lists them") from error
