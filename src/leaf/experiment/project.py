"""Paths of the project's own files. Those of results, data sets and logs are relative to the working directory."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
"""The checkout that contains this package."""

CONFIG = PROJECT / "config.yaml"
"""The default configuration."""

SHIPPED = PROJECT / "reports/shipped"
"""The collected records that are shipped with the project."""
