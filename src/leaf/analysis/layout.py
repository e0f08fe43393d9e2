"""Paths of a report's files that are not products, and of files that products read."""

from pathlib import Path

REPORTS = Path("reports")

PAGE = "README.md"
"""The first page: the paper's tables, differences and verdicts."""
ABOUT = "about.md"
"""Hand-written text that is appended to the page, if it exists."""

BENCHMARK = Path("docs/benchmark/networks.csv")
"""Measurements of the benchmark, which one of the claims uses. The file belongs to the project, not to a run."""

RECORDS = ("cells.csv", "epochs.csv", "forms.safetensors")
"""The files of collected records."""
