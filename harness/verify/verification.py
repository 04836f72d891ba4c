"""All checks of one run, in order, and what they come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.decoder import Decoder
from harness.files import sha256_file
from harness.record.images import find_images
from harness.record.rebuilt import rebuild
from harness.record.record import RECORD
from harness.record.run import Run, files_sha256, open_run
from harness.record.schema import SCHEMA_VERSION
from harness.verify.built import built_checks, latency_checks
from harness.verify.check import Check, same
from harness.verify.coverage import uncovered
from harness.verify.figures import figure_checks
from harness.verify.images import image_checks

if TYPE_CHECKING:
    from harness.stopwatch import Progress


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a run."""

    checks: tuple[Check, ...]
    """one or more a number, the whole run's first, then decoder by decoder"""
    record_sha256: str
    """of the record.json that was checked"""
    images: Path | None
    """the folder of saved images that was used; None: image-based checks were left out"""

    @property
    def status(self) -> Literal["verified", "disagrees"]:
        """Verified where nothing disagrees."""
        return "disagrees" if self.disagreements else "verified"

    @property
    def disagreements(self) -> list[Check]:
        """Checks that failed."""
        return [check for check in self.checks if check.agrees is False]

    def summary(self) -> str:
        """One line: how many numbers agree, disagree and were not checked; a number with several checks needs all of them."""
        worst: dict[tuple[str, str], list[bool | None]] = {}
        for check in self.checks:
            worst.setdefault(check.covers, []).append(check.agrees)
        bad = sum(False in verdicts for verdicts in worst.values())
        good = sum(False not in verdicts and True in verdicts for verdicts in worst.values())
        return f"{good} numbers agree, {bad} disagree, {len(worst) - good - bad} not checked"

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "summary": self.summary(),
            "record_sha256": self.record_sha256,
            "images": self.images,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(path: Path, images: Path | None = None, progress: Progress | None = None) -> Verification:
    """Compute the numbers of a run's record again.

    Args:
        path: the run's folder or its record.json.
        images: where `--save-images` put the images; None = where the record says, if that is still there.
        progress: called with (stage, done, total).

    Raises:
        MsbenchError: no run there, or its files or the images are missing or damaged.
    """
    run = open_run(path)
    digest = sha256_file(run.record.folder / RECORD)
    folder = find_images(run, images)
    report = progress or (lambda stage, done, total: None)
    results = run.record.data.results
    total = len(results) + 1
    checks = _run_checks(run)
    built: dict[str, Decoder | str] = {}
    for index, result in enumerate(results):
        report(f"computing {result.label} again", index, total)
        built[result.label] = rebuild(run, result)
        checks += figure_checks(run, result)
        checks += [*built_checks(run, result, built[result.label]), *latency_checks(run, result)]
    if folder:
        checks += image_checks(run, folder, built, lambda stage: report(stage, len(results), total))
    checks += uncovered(run.record, checks)
    report("done", total, total)
    place = {label: index for index, label in enumerate(["", *built])}
    return Verification(tuple(sorted(checks, key=lambda check: place[check.decoder])), digest, folder)


def _run_checks(run: Run) -> list[Check]:
    """Numbers of the run as a whole."""
    data = run.record.data
    mine = run.of(data.results[0].label).drop_duplicates("key")
    digest = files_sha256(mine["key"], mine["source_sha256"])
    facts = {
        "protocol_hash": (data.protocol_hash, data.protocol.hash(), "SHA-256 over the protocol's fields"),
        "dataset.source_sha256": (data.dataset.source_sha256, digest, "SHA-256 over keys and file hashes"),
        "dataset.n_samples.effective": (data.dataset.n_samples.effective, len(mine), "images in samples.parquet"),
        "dataset.resolution": (data.dataset.info.resolution, data.protocol.resolution, "the protocol's field"),
    }
    return [same("", number, *fact) for number, fact in facts.items()]
