"""The figures of whole-set runs as the `model-index` of a Hugging Face model card (extra `data`)."""

from __future__ import annotations

import math
from typing import Any

from harness.compare.comparison import Comparison
from harness.errors import MsbenchError
from harness.record.record import Record
from harness.report.results import shown_dataset, shown_name
from harness.report.table import visible

_TASK = {"task_type": "image-to-image", "task_name": "Image reconstruction"}


def model_index(comparison: Comparison) -> str:
    """The YAML block between the `---` lines of a card: one model a label, each finite metric with its definition.

    Raises:
        MsbenchError: a run is of a part of its data set or of a demo set, or the client of the hub is not installed.
    """
    records = {str(record.folder): record for record in comparison.records}
    for folder, record in records.items():
        if why := "runs of several protocols" if comparison.forced else _part(record):
            raise MsbenchError(f"{folder}: {why}: a model card states finished runs of one whole data set alone")
    try:
        from huggingface_hub.repocard_data import CardData, EvalResult, eval_results_to_model_index
    except ImportError as error:
        raise MsbenchError("--format model-index: huggingface_hub is not installed: pip install 'msbench[data]'") from error
    card: dict[str, Any] = {"model-index": []}
    for row in comparison.results:
        data = records[row["run"]].data
        side = data.protocol.resolution
        about: dict[str, Any] = {"dataset_type": visible(data.protocol.dataset), **_TASK}
        about |= {"dataset_name": visible(f"{shown_dataset(row['dataset'])}, {side} px"), "dataset_split": data.protocol.split}
        about |= {"dataset_args": {"n": row["n"], "protocol_hash": data.protocol_hash, "resolution": side}}
        results = [
            EvalResult(**about, metric_type=name, metric_value=row[name], metric_args={"definition": facts.definition})
            for name, facts in data.metrics.items()
            if row.get(name) is not None and math.isfinite(row[name])
        ]
        card["model-index"] += eval_results_to_model_index(visible(shown_name(row)), results)
    return f"{CardData(**card).to_yaml()}\n"


def _part(record: Record) -> str:
    """Why the figures are not those of a whole data set; empty where they are."""
    facts, counts = record.data.dataset, record.data.dataset.n_samples
    if record.data.status != "complete":
        return f"its status is {record.data.status}"
    if facts.info.demo:
        return f"{facts.info.name} is a demo set"
    if record.data.protocol.latent_noise:
        return "noise was added to its latents"
    if facts.info.partial or counts.effective != counts.original:
        return f"{counts.effective:,} images of a set of {'more' if facts.info.partial else f'{counts.original:,}'}"
    return ""
