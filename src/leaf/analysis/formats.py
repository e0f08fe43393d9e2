"""Write tables as CSV, LaTeX, Markdown, reStructuredText or HTML."""

import html
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from leaf.experiment.errors import UserError
from leaf.experiment.files import write_text

LONG_CELL = 80
"""Number of characters above which the text of a field wraps."""

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: left; vertical-align: bottom; }
thead th { border-bottom: 2px solid #222; }
tbody tr + tr td { border-top: 1px solid #ddd; }
"""


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table in the format that the file's suffix names: csv, tex, md, html or rst.

    The notes in ``table.attrs["notes"]`` follow the table, except in CSV. In rst, which is for the report's first page,
    the table has only the columns in ``table.attrs["in_short"]``.

    Raises:
        UserError: if the format is unknown.
    """
    if file.suffix not in WRITERS:
        raise UserError(f"{file}: unknown table format {file.suffix!r}; known: {', '.join(WRITERS)}")
    write_text(file, WRITERS[file.suffix](table))


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Convert the index to columns, and join several rows of headings."""
    if isinstance(table.columns, pd.MultiIndex):
        table = table.set_axis([", ".join(names) for names in table.columns], axis=1).reset_index()
    return table


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(object).where(table.notna(), "").map(str)


def _to_csv(table: pd.DataFrame) -> str:
    return _flat(table).to_csv(index=False)


def to_markdown(table: pd.DataFrame) -> str:
    """Convert a table to Markdown, followed by the notes in ``table.attrs["notes"]``."""
    return _in_markup(_flat(table), "pipe")


def _in_markup(table: pd.DataFrame, markup: str) -> str:
    text = _as_text(table).to_markdown(index=False, tablefmt=markup, disable_numparse=True)
    return f"{text}\n" + "".join(f"\n{note}\n" for note in _notes(table))


def _notes(table: pd.DataFrame) -> list[str]:
    return table.attrs.get("notes", [])


def _to_latex(table: pd.DataFrame) -> str:
    """Convert a table to LaTeX, for the package booktabs."""
    notes = "".join(f"{{\\par\\smallskip\\footnotesize {_latex_escape(note)}\\par}}\n" for note in _notes(table))
    if isinstance(table.columns, pd.MultiIndex):
        table = table.reset_index(col_level=1, col_fill="")
    escaped = _as_text(table).rename(columns=_latex_escape).map(_latex_escape)
    columns = ["l" if _longest(table.iloc[:, i]) <= LONG_CELL else r"p{8cm}" for i in range(table.shape[1])]
    styled = escaped.style.hide(axis="index")
    return styled.to_latex(hrules=True, column_format="".join(columns), multicol_align="c") + notes


def _latex_escape(text: str) -> str:
    replacements = {"±": r"$\pm$", "–": "--", "÷": r"$\div$", "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$"}
    replacements |= {character: f"\\{character}" for character in "%_&#${}"}
    return "".join(replacements.get(character, character) for character in text)


def _to_html(table: pd.DataFrame) -> str:
    """Convert a table to an HTML page."""
    flat = _flat(table)
    longest = max((_longest(flat[column]) for column in flat), default=0)
    body = flat.to_html(index=False, border=0, na_rep="", float_format="{:.2f}".format)
    wrapping = "normal; min-width: 7rem; vertical-align: top" if longest > LONG_CELL else "nowrap"
    style = f"<style>{_STYLE}td {{ white-space: {wrapping}; }}</style>"
    notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in _notes(table))
    return f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n{style}\n{body}\n{notes}</html>\n'


def _to_restructured_text(table: pd.DataFrame) -> str:
    return _in_markup(_flat(table)[table.attrs["in_short"]], "rst")


def _longest(column: pd.Series) -> int:
    return max((len(str(value)) for value in column if pd.notna(value)), default=0)


WRITERS: dict[str, Callable[[pd.DataFrame], str]] = {
    ".csv": _to_csv,
    ".tex": _to_latex,
    ".md": to_markdown,
    ".rst": _to_restructured_text,
    ".html": _to_html,
}
"""Table formats by file suffix."""
