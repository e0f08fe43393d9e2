"""The configuration: its models, the files generated from them, and rejected configurations."""

import copy
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from conftest import PROJECT
from project_copy import run

from leaf.analysis.products import TABLES
from leaf.analysis.statistics import METRICS
from leaf.cli import main
from leaf.experiment import schema
from leaf.experiment.computing import PRECISIONS
from leaf.experiment.config import CONFIG, check_config, parse_yaml, read_config, read_strictly
from leaf.experiment.errors import UserError
from leaf.experiment.plugins import unload_plugins
from leaf.experiment.scales import Settings
from leaf.experiment.tracking import TRACKERS
from leaf.workflow import RULES, Plan, check_names

EXPERIMENT = {
    "title": "Mine", "networks": ["lenet5"], "datasets": ["cifar10"], "activations": ["relu"],
    "procedures": ["classic"], "optimizers": ["adam"], "seeds": [1], "cells": [{}],
}  # fmt: skip


# --- what is made of the models ---------------------------------------------------------------------------------------


def test_schema_and_page_are_those_of_the_models(capsys):
    try:
        schema.main([])
    except SystemExit as exit_:
        pytest.fail(f"{capsys.readouterr().out}{exit_}")


def test_a_difference_is_printed_and_fixed(tmp_path, monkeypatch, capsys):
    for file in (schema.SCHEMA, schema.PAGE):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text((PROJECT / file).read_text().replace("float32", "float31"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"python -m leaf\.experiment\.schema --fix"):
        schema.main([])
    printed = capsys.readouterr().out
    assert re.search(r"^- +- float31$", printed, re.M) and re.search(r"^\+.*`float32`", printed, re.M)
    schema.main(["--fix"])
    for file in (schema.SCHEMA, schema.PAGE):
        assert (tmp_path / file).read_text() == (PROJECT / file).read_text()


def test_the_default_configuration_states_every_key_with_its_default():
    stated = yaml.safe_load(CONFIG.read_text())
    defaults = schema.Configuration(experiments={"mine": EXPERIMENT}).model_dump()
    del stated["experiments"], defaults["experiments"]
    assert stated == defaults


def test_keys_may_be_left_out():
    config = check_config({"experiments": {"mine": EXPERIMENT}, "checkpoint": {"epochs": 5}})
    assert config.values["checkpoint"] == {"epochs": 5, "minutes": 10}
    assert config.scale == "quick" and config.values["device"] == "auto"


def choices(model: type, key: str) -> set[str]:
    return set(get_args(model.model_fields[key].annotation))


def test_choices_are_those_of_the_code():
    assert choices(schema.Configuration, "precision") == set(PRECISIONS)
    assert choices(schema.Statistics, "metric") == {"auto", *METRICS}
    assert set(get_args(get_args(schema.Tracking.model_fields["trackers"].annotation)[0])) == set(TRACKERS)


VALID = {"experiments": {"mine": EXPERIMENT}}
WRONG = [
    {"scal": "quick"},
    {"scale": 3},
    {"scales": {"a/b": {"extends": "quick"}}},
    {"scales": {"mine": {"extends": "quick", "epochs": 0}}},
    {"scales": {"mine": {"extends": "quick", "epochs": 10**30}}},
    {"scales": {"mine": {"epochs": 3}}},
    {"experiments": {}},
    {"experiments": {"mine": EXPERIMENT | {"seeds": [1, 1]}}},
    {"experiments": {"mine": EXPERIMENT | {"cells": []}}},
    {"experiments": {"my-own": EXPERIMENT}},
    {"checkpoint": {"minutes": 0}},
    {"statistics": {"confidence": 1}},
    {"tracking": {"trackers": ["aim"]}},
    {"datasets_directory": 5},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_the_json_schema_refuses_what_the_models_refuse(changes):
    validator = jsonschema.Draft202012Validator(yaml.safe_load((PROJECT / schema.SCHEMA).read_text()))
    validator.validate(VALID)
    validator.validate(yaml.safe_load(CONFIG.read_text()))
    assert not validator.is_valid(VALID | changes)
    with pytest.raises(UserError):
        schema.validated(VALID | changes)


STRANGE = [None, True, 0, -1, 1.5, math.nan, 10**400, "", "50%", "a\nb", date(2023, 1, 1), [], [[]], [{}], [None], {}]
STRANGE += [{1: 2}, {None: 1}, {"[key]": 1}, {"x": {"y": 1}}, {date(2023, 1, 1): 1}]


def places(node: dict, path: tuple = ()) -> Iterator[tuple]:
    """Paths to every value of nested mappings and lists, the whole included."""
    yield path
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(child, (*path, key))


def test_strange_values_end_in_one_line():
    """Replace each value of a configuration by each invalid one: only a UserError may result."""
    own = {"extends": "quick", **dict.fromkeys(("epochs", "batch_size", "train_images", "seeds"), 1), "shuffle": True}
    whole = schema.validated(VALID | {"scales": {"mine": own}, "tracking": {"trackers": ["wandb"]}})
    said = []
    for path, strange in itertools.product(places(whole), STRANGE):
        changed = copy.deepcopy({"whole": whole})
        parent = reduce(getitem, ("whole", *path)[:-1], changed)
        parent[("whole", *path)[-1]] = strange
        try:
            schema.validated(changed["whole"])
        except UserError as error:
            said.append(str(error))
    assert len(said) > 700
    assert [line for line in said if "\n" in line or not re.match("[a-z]", line)] == []


# --- names, numbers and images ----------------------------------------------------------------------------------------


def test_names_of_rules_are_taken():
    """Compares with the output of ``snakemake --list-rules``."""
    listed = run(["snakemake", "--list-rules"], PROJECT)
    assert listed.returncode == 0, listed.stderr
    assert set(listed.stdout.split()) == {*RULES, *read_config().experiments}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"experiments": {name: EXPERIMENT}}, f"experiments.{name}: the workflow has a rule of this name")
            for name in ("all", "train", "partial", "fetch", "claims", "remaining", "network_tables")
        ),
        *(
            ({"experiments": {name: EXPERIMENT}}, f"experiments.{name}: reports/SCALE/figures/{name} is taken")
            for name in ("forms", "evolution")
        ),
        ({"scales": {"partial": {"extends": "quick"}}}, "scales.partial: reports/partial is taken"),
    ],
    ids=str,
)
def test_names_of_rules_and_reports_are_taken(changes, message):
    """The command ``leaf`` and the workflow say so alike."""
    config = read_config(overrides=changes)
    with pytest.raises(UserError, match=message):
        check_names(config)
    with pytest.raises(UserError, match=message):
        Plan.of(config.values, [])
    with pytest.raises(SystemExit, match=f"leaf: {message}"):
        main(["cells", "--config", json.dumps(changes)])


def test_the_former_name_of_plugins(capsys):
    file = str(PROJECT / "examples/my_activation.py")
    try:
        assert read_config(overrides={"guests": [file]}).values["plugins"] == [file]
        assert capsys.readouterr().err == "configuration: the key guests is now plugins; rename it\n"
        assert "guests" not in read_config(overrides={"guests": [file], "plugins": [file]}).values
        with pytest.raises(UserError, match="remove guests"):
            read_config(overrides={"guests": [file], "plugins": ["other.py"]})
        with pytest.raises(UserError, match=r"plugins\.0: expected string, found 3"):
            read_config(overrides={"guests": [3]})
    finally:
        unload_plugins()


@pytest.mark.parametrize(
    "name", [name for name, table in TABLES.items() if table.group.wildcards and name != "summary"]
)
def test_names_of_tables_are_taken(tmp_path, name):
    plugin = (PROJECT / "examples/my_dataset.py").read_text().replace('"shoes"', f'"{name}"')
    (tmp_path / "plugin.py").write_text(plugin)
    try:
        config = read_config(overrides={"plugins": [str(tmp_path / "plugin.py")]})
        with pytest.raises(UserError, match=rf"datasets.{name}: .*/{name} is taken; give your dataset another name"):
            check_names(config)
    finally:
        unload_plugins()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiments": {"mine\n": EXPERIMENT}}, r"experiments: 'mine\\n' does not match .* a to z, 0 to 9 and _"),
        ({"experiments": {"m" * 65: EXPERIMENT}}, "does not match .* at most 64"),
        ({"scales": {"mine\n": {"extends": "quick"}}}, r"scales: 'mine\\n' does not match"),
        ({"checkpoint": {"minutes": float("nan")}}, "checkpoint.minutes: expected a finite number, found nan"),
        ({"checkpoint": {"minutes": float("inf")}}, "checkpoint.minutes: expected a finite number, found inf"),
        ({"checkpoint": {"minutes": 10**9}}, "checkpoint.minutes: 1000000000 is greater than the maximum of 10080"),
        ({"checkpoint": {"epochs": 10**30}}, "checkpoint.epochs: 10+ is greater than the maximum of 100000"),
        ({"statistics": {"confidence": float("nan")}}, "statistics.confidence: expected a finite number, found nan"),
        ({"statistics": {"confidence": 95}}, "statistics.confidence: 95 is greater than or equal to the maximum of 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:50],
)
def test_names_and_numbers(changes, message):
    with pytest.raises(UserError, match=message) as error:
        read_config(overrides=changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 10**30}, "scales.mine.epochs: 10+ is greater than the maximum of 100000"),
        ({"batch_size": 10**30}, "scales.mine.batch_size: 10+ is greater than the maximum of 100000"),
        (
            {"train_images": 50_001},
            "experiments.linear_units: scale mine: train_images 50001 is more than cifar10's 50000",
        ),
        ({"test_images": 10_001}, "scale mine: test_images 10001 is more than cifar10's 10000"),
        ({"validation_images": 50_000}, "50000 validation_images leave none of cifar10's 50000 training images"),
        (
            {"train_images": 500, "validation_images": 500},
            "scales.mine: settings: 500 validation_images leave none of 500 train_images",
        ),
    ],
    ids=str,
)
def test_sizes_of_a_scale(changes, message):
    own = {"scale": "mine", "scales": {"mine": {"extends": "paper", **changes}}}
    with pytest.raises(UserError, match=message):
        read_config(overrides=own)


def test_images_count_for_the_scale_that_is_asked_for():
    """A scale that needs more images than a data set has is an error only if chosen; Fashion-MNIST has 60,000."""
    config = read_config(overrides={"scales": {"mine": {"extends": "paper", "train_images": 60_000}}})
    with pytest.raises(UserError, match="scale mine: train_images 60000 is more than cifar10's 50000"):
        config.cells(scale="mine")
    only = {"mine": EXPERIMENT | {"datasets": ["fashion_mnist"]}}
    largest = {"extends": "paper", "train_images": 60_000, "test_images": 10_000, "validation_images": 59_999}
    assert len(check_config({"scale": "mine", "scales": {"mine": largest}, "experiments": only}).cells(["mine"])) == 1


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"epochs": True}, {"shuffle": 1}, {"train_images": 0}, {"epochs": 10**6}]
)
def test_settings_are_checked_by_themselves(values):
    with pytest.raises(UserError, match=f"settings: {next(iter(values))} must be"):
        Settings(**values)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale: quick\ndevice: cpu\nscale: paper\n", "duplicate key 'scale' in lines 1 and 3"),
        ("checkpoint: {epochs: 1, epochs: 2}", "duplicate key 'epochs' in lines 1 and 1"),
        ("a:\n  - b: {c: 1,\n        'c': 2}", "duplicate key 'c' in lines 2 and 3"),
        ('{"a": 1,\n "a": 1}', "duplicate key 'a' in lines 1 and 2"),
        ("[" * 1000, "recursion depth"),
    ],
    ids=lambda value: value[:40],
)
def test_yaml_that_is_refused(text, message):
    with pytest.raises(UserError, match=f"^mine.yaml: .*{message}") as error:
        parse_yaml(text, "mine.yaml")
    assert "\n" not in str(error.value)


def test_yaml_that_is_read():
    nested = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n1: one\n'1': text\n"
    assert parse_yaml(nested, "mine.yaml") == yaml.safe_load(nested)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "utf16.yaml").write_text("scale: paper\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"utf16.yaml: .*save it as UTF-8"):
        read_strictly([tmp_path / "utf16.yaml"])
    with pytest.raises(UserError, match=f"{tmp_path}: Is a directory; expected a YAML file"):
        read_strictly([tmp_path])
    (tmp_path / "recursive.yaml").write_text("scales: &a {mine: *a}")
    with pytest.raises(UserError, match=r"scales.mine: unknown key 'mine'"):
        read_config([tmp_path / "recursive.yaml"])


def test_snakemake_refuses_a_key_that_a_file_has_twice(tmp_path):
    (tmp_path / "mine.yaml").write_text("scale: quick\nscale: paper\n")
    command = ["snakemake", "-n", "--configfile", str(tmp_path / "mine.yaml")]
    done = run(command, PROJECT)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    assert f"{tmp_path}/mine.yaml: duplicate key 'scale' in lines 1 and 2" in said


# --- how often, and how late ------------------------------------------------------------------------------------------


def test_a_command_reads_the_configuration_once(data, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_bytes((PROJECT / "config.yaml").read_bytes())
    (tmp_path / "resources").symlink_to(PROJECT / "resources")
    monkeypatch.chdir(tmp_path)
    opened, open_ = [], Path.open
    monkeypatch.setattr(Path, "open", lambda file, *rest, **more: opened.append(file) or open_(file, *rest, **more))
    tiny = {
        "scale": "tiny",
        "scales": {"tiny": {"extends": "quick", "epochs": 1, "train_images": 128, "test_images": 9}},
    }
    main(["train", "lenet5/fashion_mnist/relu/classic/adam/seed1", "--config", json.dumps(tiny)])
    assert opened.count(CONFIG) == 1


def test_the_command_line_imports_no_models_before_it_reads_a_configuration():
    code = "import sys, leaf.cli; print([name for name in ('pydantic', 'jsonschema') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
