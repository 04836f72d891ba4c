"""Metrics of another package: found without a change here once asked for by name, and named where they are at fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
MODULE = """
from msbench import Check, Metric, PerImage, Tolerance

brightness = Metric(
    name="brightness", direction="lower", description="difference of mean levels", definition="v1", title="Brightness",
    margin="0.5", tolerance=Tolerance(0.25, 0.0, "a choice"),
    load=lambda device, offline: PerImage(
        lambda batch, mean: (batch.images.double().mean((1, 2, 3)) - mean).abs().cpu().numpy(),
        lambda references: references.double().mean((1, 2, 3)),
    ),
    check=Check(how="NumPy means", reason="rounding", absolute=1e-9, pair=lambda a, b: abs(float(a.mean()) - float(b.mean()))),
)
gap = Metric(
    name="gap", direction="lower", description="distance of mean features", definition="v1", title="Feature gap", digits=2,
    whole=lambda whole: float(((whole.reference_features - whole.features).mean(axis=0) ** 2).sum()),
    check=Check(how="other sums", reason="rounding", relative=1e-5, whole=lambda whole: float(
        ((whole.reference_features.mean(axis=0) - whole.features.mean(axis=0)) ** 2).sum()
    )),
)
taken = Metric(name="psnr", direction="lower", description="", definition="", title="", whole=lambda whole: 0.0)
broken = Metric(name="broken", direction="lower", description="", definition="", title="",
    load=lambda device, offline: PerImage(lambda batch, state: batch.images.nothing))
short = Metric(name="short", direction="lower", description="", definition="", title="",
    load=lambda device, offline: PerImage(lambda batch, state: [0.0]))
twin = Metric(name="gap", direction="lower", description="", definition="", title="", whole=lambda whole: 0.0)
spaced = Metric(name="two words", direction="lower", description="", definition="", title="", whole=lambda whole: 0.0)
empty = Metric(name="empty", direction="lower", description="", definition="", title="")
function = len
"""
SCRIPT = """
import json, sys, pathlib
from contextlib import redirect_stdout
import io
from rich.console import Console
from harness.cli.maintain import _listing
from harness.compare.compare import compare
from harness.compare.gate import make_reference
from harness.record.record import read_record
from harness.report.results import results_table
from harness.report.table import terminal
from harness.verify.verification import verify
from msbench import RunConfig, evaluate

folder = pathlib.Path(sys.argv[1])
record = evaluate(RunConfig(("jpeg", "identity"), max_samples=4, resolution=64, output_dir=folder / "run", cost=None,
                            extra_metrics=("brightness", "gap"), save_images=folder / "images", offline=True))
text = io.StringIO()
Console(file=text, width=200).print(terminal(results_table(record.rows_for_people()), width=200))
print("SEEN" + json.dumps({
    "record": json.loads((folder / "run/record.json").read_text()),
    "samples": list(record.samples().columns),
    "json": record.document()["results"][0],
    "table": text.getvalue(),
    "compare": [[one.metric, one.margin] for one in compare([(record, None)]).comparisons],
    "gate": [[one.decoder, one.metric, one.tolerance] for one in make_reference([record]).figures],
    "verify": [[one.decoder, one.number, one.how, one.verdict] for one in verify(folder / "run").checks],
    "ls": _listing("metrics"),
}, default=str))
"""


def _installed(folder: Path, *points: str) -> dict[str, str]:
    """The environment in which package "other-metrics" names these attributes of its module as metrics."""
    (folder / "other_metrics.py").write_text(MODULE)
    info = folder / "other_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-metrics\nVersion: 1.0\n")
    lines = "".join(f"{point} = other_metrics:{point}\n" for point in points)
    (info / "entry_points.txt").write_text(f"[msbench.metrics]\n{lines}")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def _python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, metric_weights: None) -> dict[str, Any]:
    """What a run and everything that reads it say, with two metrics of another package installed."""
    folder = tmp_path_factory.mktemp("plugin")
    result = _python(_installed(folder, "brightness", "gap"), "-c", SCRIPT, str(folder))
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.rpartition("SEEN")[2])
    return found


def test_they_are_in_the_record_and_json(seen: dict[str, Any]) -> None:
    jpeg, identity = seen["record"]["results"]
    assert jpeg["brightness"] > 0
    assert jpeg["gap"] > 0
    assert (identity["brightness"], identity["gap"]) == (0.0, pytest.approx(0.0, abs=1e-6))
    for metric in ("brightness", "gap"):
        assert jpeg["intervals"][metric][0] < jpeg[metric] < jpeg["intervals"][metric][1]
        assert seen["json"][metric] == jpeg[metric]
        assert seen["record"]["higher_is_better"][metric] is False
    assert "brightness" in seen["samples"]
    assert "gap" not in seen["samples"]
    assert "jackknife" in seen["record"]["decoders"]["jpeg"]["interval_notes"]["gap"]["method"]


def test_they_are_compared_and_gated(seen: dict[str, Any]) -> None:
    assert {"brightness", "gap"} <= {metric for metric, _ in seen["compare"]}
    assert {("jpeg", "brightness"), ("jpeg", "gap")} <= {(decoder, metric) for decoder, metric, _ in seen["gate"]}


def test_they_are_listed_with_their_package(seen: dict[str, Any]) -> None:
    listed = {row["name"]: row["from"] for row in seen["ls"]}
    assert listed["gap"] == listed["brightness"] == "other-metrics"
    assert listed["psnr"] == "msbench"


def test_their_margin_and_tolerance_count(seen: dict[str, Any]) -> None:
    assert dict(seen["compare"])["brightness"] is not None
    assert ["jpeg", "brightness", 0.25] in seen["gate"]


def test_they_are_in_the_table(seen: dict[str, Any]) -> None:
    assert "Brightness" in seen["table"]
    assert "Feature gap" in seen["table"]


def test_they_are_verified(seen: dict[str, Any]) -> None:
    ways = {(number, how.partition(",")[0]) for decoder, number, how, verdict in seen["verify"] if verdict == "agrees"}
    assert ("gap", "other sums") in ways
    assert ("samples.brightness.0", "NumPy means") in ways


LOAD = """
import sys
from harness.cli.maintain import _listing
from harness.metrics.registry import METRICS, check_extra, plug_ins
print([row["name"] for row in _listing("metrics")][-1], list(plug_ins()), "other_metrics" in sys.modules)
check_extra(sys.argv[1])
print(METRICS[sys.argv[1]].origin, METRICS[sys.argv[1]].extra, "other_metrics" in sys.modules)
"""
MEASURE = """
import sys, torch
from harness.metrics.metric import Batch
from harness.metrics.suite import MetricSuite
from harness.metrics.registry import check_extra
check_extra(sys.argv[1])
suite = MetricSuite(inception=object(), extra=(sys.argv[1],))
images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
suite.measure(suite.names[-1], Batch(images, images), [None])
"""


@pytest.mark.parametrize(
    ("points", "line"),
    [
        (("missing",), "metric 'missing' of other-metrics (other_metrics:missing) cannot be loaded: AttributeError"),
        (("function",), "is a builtin_function_or_method, not"),
        (("twin",), "its name 'gap' must be its entry point's"),
        (("spaced",), "its name 'two words' must be"),
        (("empty",), "computes nothing"),
    ],
)
def test_what_is_wrong_with_a_package_is_one_line(tmp_path: Path, points: tuple[str, ...], line: str) -> None:
    result = _python(_installed(tmp_path, *points), "-m", "msbench", "run", "--decoder", "jpeg", "--extra-metrics", points[0])
    assert result.returncode == 2
    assert line in result.stderr
    assert "other-metrics" in result.stderr
    assert result.stderr.count("\n") == 1


def test_nothing_is_imported_until_its_name_is_asked_for(tmp_path: Path) -> None:
    result = _python(_installed(tmp_path, "broken", "gap", "psnr"), "-c", LOAD, "gap")
    assert result.returncode == 0, result.stderr
    # One that calls itself psnr is none, and is never loaded: the module has no such attribute.
    assert result.stdout.splitlines() == ["gap ['broken', 'gap'] False", "other-metrics True True"]


@pytest.mark.usefixtures("metric_weights")
@pytest.mark.parametrize(
    ("point", "line"),
    [
        ("broken", "metric 'broken' of other-metrics: AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ("short", "metric 'short' of other-metrics: wanted one number for each of 2 images, got short of shape [1]"),
    ],
)
def test_a_metric_that_fails_is_named(tmp_path: Path, point: str, line: str) -> None:
    result = _python(_installed(tmp_path, point), "-c", MEASURE, point)
    assert f"MsbenchError: {line}" in result.stderr
