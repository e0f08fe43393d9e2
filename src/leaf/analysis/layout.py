"""Files of a report that are not products of ``leaf.analysis.products``."""

from pathlib import Path

REPORTS = Path("reports")

PAGE = "README.md"
"""The first page: the paper's tables, differences and verdicts."""
ABOUT = "about.md"
"""Hand-written text that is appended to the page, if it exists."""

BENCHMARK = Path("docs/benchmark/networks.csv")
"""Measurements of the benchmark, which one of the claims uses; a file of the project, not of a run."""

RECORDS = ("cells.csv", "epochs.csv", "forms.safetensors")
"""The files of collected records."""
