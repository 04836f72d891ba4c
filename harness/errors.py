"""Errors a user can act on: one line that says what is wrong, where, and what to do. The CLI turns them into exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST = 500
"""characters of a message of code from outside that are told"""


class MsbenchError(Exception):
    """Bad input or a missing resource; the message is shown to the user as it is."""


class ElsewhereError(MsbenchError):
    """Another process of the job failed and says why; this one ends without a word."""


class UnknownNameError(MsbenchError):
    """A name that no registry knows; the message suggests the nearest one.

    Args:
        kind: what was looked up, singular ("decoder", "dataset", "metric", "preset").
        name: what the user wrote.
        known: every name that would have worked.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}")


@contextmanager
def plugin_boundary(who: str, what: str) -> Iterator[None]:
    """Turn whatever code from outside raises, `SystemExit` and `MemoryError` too, into one line that names it.

    Args:
        who: the plug-in, as "decoder vae".
        what: what it was asked for, as "decode".

    Raises:
        MsbenchError: it raised; one of its own passes as it is, and so does `KeyboardInterrupt`.
    """
    try:
        yield
    except MsbenchError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:LONGEST] or "no message"
        raise MsbenchError(f"{who}: {what} raised {type(error).__name__}: {text}") from error
