"""The commands for one's own decoder: `check`, and `new decoder`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import shared
from harness.errors import MsbenchError

_TEMPLATES = Path(__file__).parent.parent / "check" / "templates"


def check_command(
    decoder: Annotated[str, typer.Argument(help="A decoder, as `run --decoder` takes it.")],
    resolution: shared.Side = 256,
    device: str = "cpu",
    dtype: str = "fp32",
    timeout: Annotated[float, typer.Option(min=1.0, max=86_400.0, callback=shared.finite)] = 900.0,
    as_json: shared.JsonFlag = False,
) -> None:
    """Try whether a decoder keeps the contract: what fails, why, and how to mend it; exit 1 where a check fails.

    \b
    Examples:
      msbench check my_model.py --device cuda
    """
    from harness.check.child import check_apart
    from harness.check.conformance import WARNING
    from harness.decoder import parse_dtype
    from harness.registry import FILE, find_entry, name_clashes
    from harness.request.model_file import find_file
    from harness.request.requests import parse_request
    from harness.run.config import check_device
    from harness.speed.bench import photo_pixels

    request = parse_request(decoder)
    if find_entry(request.name)[0] is FILE:
        find_file(request.name)  # a mistyped path is no fault of a decoder
    for line in name_clashes([request.name]):
        shared.say(f"warning: {line}", stderr=True)
    found = []
    for one in check_apart(request, check_device(device), parse_dtype(dtype), photo_pixels(resolution), timeout):
        found.append(one)
        mark = "warn" if one.passed and one.detail else {None: "–   ", False: "FAIL", True: "ok  "}[one.passed]
        shared.say(f"{mark} {one.name}{': ' * bool(one.detail)}{one.detail.removeprefix(WARNING)}", as_json)
    failed = ", ".join(one.name for one in found if one.passed is False)
    shared.say(f"{decoder}: {'failed: ' if failed else 'no check failed'}{failed}", as_json)
    if as_json:
        status, checks = "failed" if failed else "complete", [asdict(one) for one in found]
        shared.print_json({"schema_version": 1, "status": status, "decoder": decoder, "checks": checks})
    if failed:
        raise typer.Exit(1)


def new_decoder_command(file: Path) -> None:
    """Write a decoder that works, to put your own model into, and a test beside it; nothing is overwritten.

    \b
    Examples:
      msbench new decoder my_model.py && msbench check my_model.py
    """
    from harness.files import write_text

    if file.suffix != ".py":
        raise MsbenchError(f"{file}: give the name of a Python file, such as my_model.py")
    if not file.parent.is_dir():
        raise MsbenchError(f"{file}: there is no folder {file.parent}")
    made = {file: "decoder.txt", file.with_name(f"test_{file.name}"): "test.txt"}
    if there := [str(path) for path in made if path.exists()]:
        exist = "exists already and stays as it is" if len(there) == 1 else "exist already and stay as they are"
        raise MsbenchError(f"{' and '.join(there)} {exist}: give another name")
    for path, template in made.items():
        write_text(path, (_TEMPLATES / template).read_text(encoding="utf-8").replace("MY_MODEL", file.name))
        shared.say(f"wrote {path}")
    shared.say(f"next: msbench check {file}")
