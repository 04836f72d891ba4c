"""All checks of one run, in order, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.decoder import Decoder
from harness.errors import MsbenchError
from harness.record.schema import SCHEMA_VERSION
from harness.run.quality import Progress
from harness.verify.built import built_checks, latency_checks
from harness.verify.check import Check
from harness.verify.coverage import uncovered
from harness.verify.features import feature_checks
from harness.verify.hashes import hash_checks, reference_check
from harness.verify.images import feature_image_checks, latent_checks, pixel_checks, torch_fidelity_checks
from harness.verify.intervals import interval_checks
from harness.verify.opened import Opened, open_run, rebuild
from harness.verify.samples import sample_checks


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a run."""

    checks: tuple[Check, ...]
    """one or more a number, the whole run's first, then decoder by decoder"""
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
        names = ("decoder", "number", "recorded", "recomputed", "how", "tolerance", "tolerance_reason", "agrees")
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "summary": self.summary(),
            "images": self.images,
            "checks": [{name: getattr(check, name) for name in names} for check in self.checks],
        }


def verify(run: Path, images: Path | None = None, progress: Progress | None = None) -> Verification:
    """Compute every number of a run's record again.

    Args:
        run: its folder or its record.json.
        images: where `--save-images` put the images; None = where the record says, if that is still there.
        progress: called with (stage, done, total).

    Raises:
        MsbenchError: no run there, or its files or the images are missing or damaged.
    """
    opened = open_run(run, images)
    report = progress or (lambda stage, done, total: None)
    decoders = list(opened.rows)
    total = len(decoders) + 1
    checks = [*hash_checks(opened), reference_check(opened), *sample_checks(opened)]
    for index, decoder in enumerate(decoders):
        report(f"computing {decoder} again", index, total)
        built = _built(opened, decoder)
        checks += [*feature_checks(opened, decoder), *interval_checks(opened, decoder)]
        checks += [*built_checks(opened, decoder, built), *latency_checks(opened, decoder)]
        checks += latent_checks(opened, decoder, built)

    def stage(text: str) -> None:
        report(text, len(decoders), total)

    checks += [*pixel_checks(opened, stage), *feature_image_checks(opened), *torch_fidelity_checks(opened, stage)]
    checks += uncovered(opened, checks)
    report("done", total, total)
    place = {name: index for index, name in enumerate(["", *decoders])}
    return Verification(tuple(sorted(checks, key=lambda check: place[check.decoder])), opened.images)


def _built(opened: Opened, decoder: str) -> Decoder | str:
    """The decoder, or why it cannot be built here."""
    try:
        return rebuild(opened.record, decoder)
    except MsbenchError as error:
        return f"the decoder cannot be built here: {error}"
