"""Shards of one run that were measured apart, `--shard I/N`, as the run that they are parts of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import MsbenchError
from harness.files import folder_lock
from harness.record.record import Record, read_record, write_record
from harness.record.schema import RunData
from harness.run.config import parse_shard
from harness.run.figures import difference, draw_sheet, quality_figures
from harness.run.journal import Journal, check_output

_OWN = ("shard", "save_images", "device")
"""options in which shards of one plan may differ"""


def merge(folders: Sequence[Path], output_dir: Path, command: str = "Python API") -> Record:
    """Write the record, samples, features and sheet of the whole run; the shards stay as they are.

    Needs no decoder and no image, so that cost, which is of decoders, is not measured.

    Args:
        folders: of every shard, in any order.
        output_dir: of the whole run; it must hold none.
        command: how it was started, for the record.

    Raises:
        MsbenchError: a shard is not finished, missing, there twice or of another plan, or images are in no shard or in two.
    """
    check_output(output_dir)
    records = [read_record(folder) for folder in folders]
    first = records[0].data
    for record in records:
        if record.data.status != "shard":
            raise MsbenchError(f"{record.folder} is no finished shard (status {record.data.status}): finish it with --resume")
        if differing := difference(_anywhere(first), _anywhere(record.data), str(record.folder), _OWN):
            raise MsbenchError(f"not shards of one run: {differing}")
    given = sorted(parse_shard(str(record.data.config["shard"])) for record in records)
    if len(counts := sorted({count for _, count in given})) > 1:
        raise MsbenchError(f"shards of {' and of '.join(map(str, counts))} are mixed: each is wanted once, of one number")
    wanted = [(place, given[0][1]) for place in range(given[0][1])]
    for what, found in ("is missing", Counter(wanted) - Counter(given)), ("is one too many", Counter(given) - Counter(wanted)):
        if found:
            place, count = min(found)
            raise MsbenchError(f"shard {place + 1}/{count} {what}: each of {given[0][1]} is wanted once")
    journal = Journal.read([record.folder for record in records])
    if not journal.frames:
        raise MsbenchError(f"{', '.join(map(str, folders))}: no usable image")
    if uneven := journal.uneven:
        raise MsbenchError(f"{uneven[0]} drew noise in some shards alone: measure it in one run, by torchrun where it is long")
    known = len(journal.keys()) + sum(len(journal.left_out(why)) for why in ("skipped", "excluded"))
    if known != first.dataset.info.n_selected:
        raise MsbenchError(f"the shards hold {known} of {first.dataset.info.n_selected} images: parts of them are missing")
    data = replace(
        first,
        config={**first.config, "shard": None, "save_images": None, "output_dir": str(output_dir)},
        command=command,
        date=min(record.data.date for record in records),
        seconds=sum(record.data.seconds for record in records),
        timing=None,
    )
    with folder_lock(output_dir):
        journal.finish(output_dir)
        draw_sheet(output_dir, journal, first.protocol.noise_seed)
        return write_record(output_dir, replace(data, status="complete", **quality_figures(data, journal)))


def _anywhere(data: RunData) -> RunData:
    """A record with hashes in place of the folders where images and weights lie, which may have other names elsewhere."""
    if not data.dataset.keys_sha256:
        return data
    names = {name: re.sub(r"[^=:@,'\"]*/", "", str(data.config[name])) for name in ("decoders", "checkpoint")}
    facts = replace(data.dataset, info=replace(data.dataset.info, name=data.dataset.keys_sha256))
    return replace(data, config={**data.config, **names, "dataset": None, "data_dir": None}, dataset=facts)
