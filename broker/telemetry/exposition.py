"""Metrics as the Prometheus text format writes them (version 0.0.4). Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.telemetry.metrics import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its numbers: one cell for each combination, or a histogram's cells."""

    metric: Metric
    cells: Mapping[tuple[str, ...], Sequence[float]]


def family(metric: Metric, cells: Sequence[float]) -> Family:
    """The family whose combinations are fixed, from their cells in a row."""
    width = metric.width
    return Family(
        metric,
        {v: cells[i * width : (i + 1) * width] for i, v in enumerate(metric.values)},
    )


def gauge(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    """A family of plain numbers whose combinations are only known now."""
    return Family(metric, {labels: (value,) for labels, value in values.items()})


def render(families: Iterable[Family]) -> str:
    """The whole page."""
    return "".join(line + "\n" for one in families for line in _lines(one))


def _lines(family: Family) -> Iterable[str]:
    metric = family.metric
    yield f"# HELP {metric.name} {_escape_help(metric.help)}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for values, cells in family.cells.items():
        labels = list(zip(metric.labels, values, strict=True))
        if metric.kind != "histogram":
            yield f"{metric.name}{_labels(labels)} {_number(cells[0])}"
            continue
        *buckets, total = cells
        count = 0.0
        for bound, there in zip((*metric.buckets, float("inf")), buckets, strict=True):
            count += there
            below = _labels([*labels, ("le", _bound(bound))])
            yield f"{metric.name}_bucket{below} {_number(count)}"
        yield f"{metric.name}_sum{_labels(labels)} {_number(total)}"
        yield f"{metric.name}_count{_labels(labels)} {_number(count)}"


def _labels(labels: Sequence[tuple[str, str]]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
