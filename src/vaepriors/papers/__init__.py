"""The papers' tables as data (`rows`), jobs that fill them (`jobs`, `running`, `cluster`), and the papers beside ours
(`show`).
"""

from vaepriors.papers.cluster import run_on_ray
from vaepriors.papers.jobs import Job, RunOptions
from vaepriors.papers.measures import measure_angle, measure_smoothness
from vaepriors.papers.results import Summary, read_result, summarize
from vaepriors.papers.rows import METRICS, Metric, Row, Table, select, table, tables
from vaepriors.papers.running import run_here, run_job
from vaepriors.papers.show import fill, markdown

__all__ = [
    "METRICS",
    "Job",
    "Metric",
    "Row",
    "RunOptions",
    "Summary",
    "Table",
    "fill",
    "markdown",
    "measure_angle",
    "measure_smoothness",
    "read_result",
    "run_here",
    "run_job",
    "run_on_ray",
    "select",
    "summarize",
    "table",
    "tables",
]
