"""A decoder in a file of yours: `my_model.py`, or `my_model.py:attribute`; nothing is installed and no package is made."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError, UnknownNameError
from harness.request.foreign import ForeignDecoder, has_codec, positional, refuse_options

USUAL = ("decoder", "make", "build")
"""names that a file may give the one thing it offers"""
_BOTH = "encode and decode"  # a file's own two functions


def build(options: DecoderOptions) -> Decoder:
    """The decoder in the file `options.location`, FILE.py or FILE.py:ATTRIBUTE.

    The attribute is a factory (without arguments, or of one `DecoderOptions`), a class, an object with `encode` and `decode`,
    or a pair of these functions. Without it the file must offer one: what is called `decoder`, `make` or `build`, or else the
    only class or object with `encode` and `decode`, or the file's own functions of these names.

    Raises:
        MsbenchError: no such file, it raises, it offers nothing or several things, or an option is given that nothing takes.
        UnknownNameError: no such attribute.
    """
    path, attribute = find_file(options.location)
    code = path.read_bytes()
    module = _imported(path, code)
    offered = _offered(module)
    if attribute and not hasattr(module, attribute):
        raise UnknownNameError(f"attribute of {path}", attribute, offered)
    if not attribute and len(offered) != 1:
        what = f"several: {', '.join(offered)}" if offered else "nothing with encode and decode"
        raise MsbenchError(f"{path} offers {what}; say which by {path}:NAME, or call it {' or '.join(USUAL)}")
    chosen = attribute or offered[0]
    thing = (module.encode, module.decode) if chosen == _BOTH else getattr(module, chosen)
    with _blamed(path, f"making {chosen}"):
        if isinstance(thing, type) or (callable(thing) and not has_codec(thing)):
            thing = _made(thing, chosen, options)
        else:
            refuse_options(chosen, options)
    with _blamed(path, "looking at what it does"):
        return ForeignDecoder(thing, options, hashlib.sha256(code).hexdigest())


def find_file(location: str) -> tuple[Path, str]:
    """The file of FILE.py or FILE.py:ATTRIBUTE, and the attribute or ""; raises `MsbenchError` where it is not there."""
    place, _, attribute = (location, "", "") if location.endswith(".py") else location.rpartition(":")
    path = Path(os.path.expanduser(place))
    if not path.is_file():
        raise MsbenchError(f"decoder {location}: there is no file {path}")
    return path, attribute


def _imported(path: Path, code: bytes) -> ModuleType:
    """The file as a module of a name that hides none; modules beside it are found after those that are installed."""
    file = str(path.resolve())
    module = ModuleType(f"msbench_model_{hashlib.sha256(file.encode()).hexdigest()[:12]}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    with _blamed(path, "importing it"):
        exec(compile(code, file, "exec", dont_inherit=True), vars(module))
    return module


def _offered(module: ModuleType) -> list[str]:
    """Names of what a file offers as its decoder."""
    public = {name: one for name, one in vars(module).items() if not name.startswith("_") and not isinstance(one, ModuleType)}
    if usual := [name for name in USUAL if name in public]:
        return usual
    objects = {name: one for name, one in public.items() if has_codec(one) and not isinstance(one, type)}
    made = {type(one) for one in objects.values()}
    own = {name: one for name, one in public.items() if isinstance(one, type) and one.__module__ == module.__name__}
    classes = [name for name, one in own.items() if has_codec(one) and one not in made]
    return [*objects, *classes, *([_BOTH] if has_codec(module) else [])]


def _made(maker: Callable[..., Any], name: str, options: DecoderOptions) -> object:
    """What a factory or class gives: called with the options where it takes an argument."""
    takes = positional(maker)
    needed = [one.name for one in takes if one.default is one.empty]
    if len(needed) > 1:
        raise MsbenchError(f"{options.location}: {name} needs {', '.join(needed)}; it may take nothing, or one DecoderOptions")
    if needed or (takes and takes[0].name == "options"):
        return maker(options)
    refuse_options(name, options)
    return maker()


@contextmanager
def _blamed(path: Path, what: str) -> Iterator[None]:
    """Whatever the file raises inside becomes one line with its place."""
    try:
        yield
    except MsbenchError:
        raise
    except (Exception, SystemExit) as error:
        file = str(path.resolve())
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else (lines or [None])[-1]
        where = f", line {line}" if line else ""
        raise MsbenchError(f"{path}{where}: {what} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
