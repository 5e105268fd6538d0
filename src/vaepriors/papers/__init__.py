"""The papers' tables, runnable: rows (`rows`), work (`work`), many machines (`cluster`), paper beside ours (`show`)."""

from vaepriors.papers.cluster import attempt, run_on_ray
from vaepriors.papers.rows import METRICS, Metric, Row, Table, select, table, tables
from vaepriors.papers.show import Shown, fill, markdown, shown
from vaepriors.papers.work import Limits, Work, measure_angle

__all__ = [
    "METRICS",
    "Limits",
    "Metric",
    "Row",
    "Shown",
    "Table",
    "Work",
    "attempt",
    "fill",
    "markdown",
    "measure_angle",
    "run_on_ray",
    "select",
    "shown",
    "table",
    "tables",
]
