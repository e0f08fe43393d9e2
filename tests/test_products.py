"""The catalogue of tables and figures, and what products are made with."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

import leaf
from leaf.analysis.digest import digest
from leaf.analysis.products import FIGURES, PRODUCTS, TABLES, by_group
from leaf.analysis.sources import sources

SOURCES = Path(leaf.__file__).parent


def reached(*modules: str) -> set[str]:
    return {str(file.relative_to(SOURCES)) for file in sources(modules)}


def test_reading_the_catalogue_imports_no_function_of_it():
    modules = {product.function.partition(":")[0] for product in PRODUCTS} | {"pandas", "matplotlib", "seaborn"}
    code = f"import sys, leaf.analysis.products, leaf.analysis.digest; print({modules} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_every_product_has_a_caption_and_none_is_left_over():
    captions = {file.name for file in (PROJECT / "workflow/report").glob("*_*.rst")}
    assert {product.caption for product in PRODUCTS} == captions


def test_the_products_of_a_group_are_of_one_kind_and_have_their_own_names():
    assert len(PRODUCTS) == len(TABLES) + len(FIGURES) == len({product.path for product in PRODUCTS})
    assert all(len({product.kind for product in products}) == 1 for products in by_group().values())


@pytest.mark.slow
@pytest.mark.parametrize("module", ["leaf.analysis.claims", "leaf.analysis.forest", "leaf.analysis.figures"])
def test_the_sources_hold_every_module_that_python_imports(module):
    code = f"import sys, {module}; print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'leaf'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {str(Path(file).relative_to(SOURCES)) for file in found.stdout.split()}
    assert {"networks.py", "names.py", "experiment/cells.py", "analysis/tables.py"} <= imported <= reached(module)


def test_the_sources_hold_nothing_above():
    of_tables = reached("leaf.analysis.tables")
    assert not of_tables & {"analysis/figures.py", "analysis/products.py", "workflow.py", "cli.py"}
    assert "analysis/figures.py" in reached("leaf.analysis.analyse")  # which names it as the catalogue does
    assert "analysis/choice.py" not in reached("leaf.analysis.forms")  # which has a method of this name


def test_the_digest_depends_on_the_entry_and_on_what_it_reads(monkeypatch, tmp_path):
    movement, claims = TABLES["movement"], TABLES["claims"]
    assert digest([movement]) == digest([movement]) != digest([TABLES["matches"]])
    before = digest([movement]), digest([claims])
    for name in (*claims.reads, *(f"workflow/report/{product.caption}" for product in (movement, claims))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    monkeypatch.setattr("leaf.analysis.digest.PROJECT", tmp_path)
    assert (digest([movement]), digest([claims])) == before
    (tmp_path / "src/leaf/analysis/claims.yaml").write_text("[]")
    assert digest([movement]) == before[0] and digest([claims]) != before[1]
    (tmp_path / "workflow/report" / movement.caption).write_text("Another caption.")
    assert digest([movement]) != before[0]
