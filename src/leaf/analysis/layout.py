"""Files in and about a report's directory that are no products of ``leaf.analysis.products``."""

from pathlib import Path

REPORTS = Path("reports")

PAGE = "README.md"
"""What a reader opens first: the paper's tables, differences and verdicts."""
ABOUT = "about.md"
"""Text by hand that the page ends with, if there is any."""

BENCHMARK = Path("docs/benchmark/networks.csv")
"""The benchmark's measurements that one of the claims is judged by; a file of the project, not of a run."""

RECORDS = ("cells.csv", "epochs.csv", "forms.safetensors")
"""The files of collected records."""
