"""Where tables and figures lie below a report's directory, with Snakemake's wildcards; without their suffixes."""

from pathlib import Path

from leaf.experiment.cells import CELL_PATTERN

REPORTS = Path("reports")

SUMMARY_TABLE = "tables/{experiment}/{network}/{dataset}"
NETWORK_TABLE = "tables/{experiment}/{network}/{kind}"
REPORT_TABLE = "{kind}"
PROGRESS_CHART = "figures/{experiment}/{network}/{dataset}/{form}"
FORMS_CHART = f"figures/forms/{CELL_PATTERN}"
EVOLUTION_CHART = f"figures/evolution/{CELL_PATTERN}"
INITIAL_FORMS_CHART = "figures/initial_forms"
DIFFERENCES_CHART = "figures/differences"
PAGE = "README.md"
"""What a reader opens first: the paper's tables, differences and verdicts."""
ABOUT = "about.md"
"""Text by hand that the page ends with, if there is any."""

TABLE_FORMATS = ("csv", "tex", "md", "html")
"""Every table is written in each of these."""

NETWORK_TABLES = ("paper", "differences", "best_epoch", "matches", "movement")
"""The kinds of tables that an experiment has of each network."""

REPORT_TABLES = ("overview", "claims")
"""The kinds of tables that a report has once."""

BENCHMARK = Path("docs/benchmark/networks.csv")
"""The benchmark's measurements that one of the claims is judged by; a file of the project, not of a run."""

RECORDS = ("cells.csv", "epochs.csv", "forms.safetensors")
"""The files of collected records."""
