"""Text that survives: the character error rate of a text recogniser on the reconstruction, against what stands on the page.

The recogniser is RapidOCR (PP-OCRv4, its models lie in its wheel; extra `text`), with its own defaults but for the classifier
of upside-down lines, which is off. It drops spaces and mixes up full-width signs with ASCII, so both sides go through Unicode's
NFKC and lose their white space.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from harness.errors import MsbenchError
from harness.metrics.metric import Batch, Column, Metric, PerImage

PACKAGE = "rapidocr-onnxruntime"

Line = tuple[Sequence[Sequence[float]], str]
"""A line as it was found: the four corners (x, y) of its box, and its text"""


def edit_distance(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of one character that turn one text into the other (Levenshtein 1966)."""
    before = list(range(len(second) + 1))
    for row, mine in enumerate(first, 1):
        now = [row]
        for column, other in enumerate(second, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (mine != other)))
        before = now
    return before[-1]


def comparable(text: str) -> str:
    """The text in NFKC, without white space."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def in_reading_order(lines: Iterable[Line]) -> str:
    """Texts of boxes as one: rows from the top, each from the left.

    A box belongs to the row above where their centres differ by less than half its height.
    """
    rows: list[tuple[float, list[tuple[float, str]]]] = []
    for corners, text in sorted(lines, key=lambda line: sum(y for _, y in line[0])):
        xs, ys = zip(*corners, strict=True)
        middle = sum(ys) / len(ys)
        if not rows or middle - rows[-1][0] >= (max(ys) - min(ys)) / 2:
            rows.append((middle, []))
        rows[-1][1].append((min(xs), text))
    return "\n".join(text for _, row in rows for _, text in sorted(row))


def error_rate(truth: str, found: str) -> float:
    """Edit distance over the length of the truth, both comparable: 0 at best, 1 for nothing found, above for much that is not
    there. The truth must hold a character."""
    wanted = comparable(truth)
    return edit_distance(wanted, comparable(found)) / len(wanted)


def load(device: torch.device, offline: bool) -> PerImage:
    """The recogniser, on the CPU with torch's number of threads; raises `MsbenchError` where it is not installed."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:  # also where a library is missing that OpenCV needs
        raise MsbenchError(f"--extra-metrics ocr needs {PACKAGE} ({error}): pip install 'msbench[text]'") from error
    reader = RapidOCR(intra_op_num_threads=torch.get_num_threads(), inter_op_num_threads=1)

    def measure(batch: Batch, _: None) -> Column:
        values = []
        for image, truth in zip(batch.images.permute(0, 2, 3, 1).flip(-1).cpu().numpy(), batch.texts, strict=True):
            found, _ = reader(np.ascontiguousarray(image), use_cls=False)  # it takes BGR
            values.append(error_rate(truth or "", in_reading_order((corners, text) for corners, text, *_ in found or ())))
        return np.array(values)

    return PerImage(measure)


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "that is not installed"


METRIC = Metric(
    name="ocr",
    direction="lower",
    description="character error rate of a text recogniser; on images whose text is known",
    definition=f"edits over characters of the known text, which {PACKAGE} {_version()} needs: NFKC, no white space, "
    "lines by position",
    title="OCR CER",
    extra=True,
    needs_text=True,
    by_label=True,
    load=load,
)
