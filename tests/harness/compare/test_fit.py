"""Which runs stand side by side: finished images beside whatever has the same reference pixels, everything else by protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare.compare import compare
from harness.compare.comparison import basis, side_by_side
from harness.errors import MsbenchError
from harness.record.protocol import FINISHED
from harness.record.record import Record, write_record
from tests.harness.conftest import PROTOCOL, MakeRun

SCORED = replace(PROTOCOL, dataset="folder", resolution=0, preprocessing="as-given-v1", reconstructions=FINISHED)
SHIFTED = {"vae": 0.0, "other": 0.1}


def with_pixels(run: Record, pixels: str) -> Record:
    dataset = replace(run.data.dataset, reference_sha256=pixels)
    return write_record(run.folder, replace(run.data, dataset=dataset))


@pytest.mark.parametrize("changes", [{}, {"noise_seeds": 3, "noise_seed": 5}, {"max_samples": 60, "subset": "by class"}])
def test_finished_images_compare_with_a_run_of_the_same_pixels(
    tmp_path: Path, make_run: MakeRun, changes: dict[str, object]
) -> None:
    run = make_run(tmp_path / "run", SHIFTED, protocol=replace(PROTOCOL, **changes))
    scored = make_run(tmp_path / "scored", {"vae": 0.3}, protocol=SCORED, source="png files")
    for pair in ((run, scored), (scored, run)):
        comparison = compare([(one, None) for one in pair])
        assert comparison.warnings == ()
        assert "lpips" in {one.metric for one in comparison.comparisons}


def test_finished_images_of_other_pixels_do_not(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", SHIFTED)
    scored = with_pixels(make_run(tmp_path / "scored", {"vae": 0.3}, protocol=SCORED, source="png files"), "q")
    with pytest.raises(MsbenchError, match=r"do not compare: the reference's pixels \(reference_sha256\); protocol field data"):
        compare([(run, None), (scored, None)])


def test_margins_must_agree(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", SHIFTED)
    scored = make_run(tmp_path / "scored", {"vae": 0.3}, protocol=replace(SCORED, margins="psnr=1"), source="png files")
    with pytest.raises(MsbenchError, match="do not compare: protocol field margins"):
        compare([(run, None), (scored, None)])


def test_runs_that_decode_compare_by_protocol_alone(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", SHIFTED)
    for name, other in (("seed", replace(PROTOCOL, noise_seed=1)), ("crop", replace(PROTOCOL, preprocessing="other"))):
        fit = side_by_side(basis(run), basis(make_run(tmp_path / name, SHIFTED, protocol=other)))
        assert fit.quality


def test_finished_images_of_the_same_files_and_protocol_compare_like_runs(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", SHIFTED)
    scored = make_run(tmp_path / "scored", {"vae": 0.3}, protocol=replace(PROTOCOL, reconstructions=FINISHED))
    fit = side_by_side(basis(run), basis(with_pixels(scored, "q")))
    assert fit.quality == ""
    assert "same files, other pixels" in fit.warnings[0]


def test_photographs_that_one_side_alone_knows_count_for_both(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", SHIFTED, photographs=12)
    scored = make_run(tmp_path / "scored", {"vae": 0.3}, protocol=SCORED, source="png files")
    for pair in ((run, scored), (scored, run)):
        found = {one.metric: one.units for one in compare([(one, None) for one in pair]).comparisons}
        assert found["lpips"] == found["rfid"] == 12
