"""Where the project's own files are, wherever a run works: results, data sets and logs go to the working directory."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
"""The checkout that this package is a part of."""

CONFIG = PROJECT / "config.yaml"
"""The default configuration."""

SHIPPED = PROJECT / "reports/shipped"
"""The collected records that the project comes with."""
