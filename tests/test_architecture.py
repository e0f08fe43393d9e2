"""The architecture: imports follow the layers, the environment files agree, and the lock is complete."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT

SOURCES = sorted((PROJECT / "src/leaf").rglob("*.py"))

FLOORS = {"leaf": 0, "leaf.experiment": 1, "leaf.analysis": 2, "leaf.workflow": 3, "leaf.cli": 4}


def floor(module: str) -> int:
    for prefix in ("leaf.cli", "leaf.workflow", "leaf.analysis", "leaf.experiment"):
        if module == prefix or module.startswith(f"{prefix}."):
            return FLOORS[prefix]
    return 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PROJECT)))
def test_imports_follow_the_layers(source: Path):
    module = ".".join(source.relative_to(PROJECT / "src").with_suffix("").parts)
    if module == "leaf.__init__":  # the public names, from all layers
        return
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("leaf"):
            assert floor(node.module) <= floor(module), f"{module} imports {node.module}"


@pytest.mark.slow
def test_the_lowest_layer_is_pure_torch():
    code = "import sys, leaf.procedures; print([m for m in ('yaml', 'pandas', 'pydantic') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def locked_versions() -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (PROJECT / "requirements.lock").read_text(), re.M):
        versions.setdefault(name, set()).add(version)
    return versions


def test_environment_has_the_versions_of_the_lock():
    locked = locked_versions()
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    items = [item.lower() for item in (*plain, *pip)]
    pins = dict(re.split("=+", item) for item in items if "=" in item and not item.startswith("python="))
    for name, version in pins.items():
        assert version in locked[name], f"{name}: {version} in environment.yml, {locked[name]} in requirements.lock"
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    direct = {
        re.split("[>=]", item)[0].lower()
        for item in (
            *declared["project"]["dependencies"],
            *chain.from_iterable(declared["project"]["optional-dependencies"].values()),
            *declared["dependency-groups"]["dev"],
        )
    }
    assert set(pins) == direct


def test_the_lock_is_hashed_and_names_no_host():
    text = (PROJECT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-z])", text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)
    assert "://" not in text and "--index" not in text
