"""Models of the configuration: keys, types, choices, limits, defaults and descriptions.

The JSON schema, with which editors complete and check ``config.yaml``, and the table in the documentation are generated
from these models. ``python -m leaf.experiment.schema`` prints the differences between these files and the models and
fails if there are any; with ``--fix`` it writes the files.

``leaf.experiment.config`` imports this module only when it checks a configuration. A job of Snakemake has all settings
on its command line and need not import pydantic.
"""

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from typing_extensions import TypedDict  # required by pydantic below Python 3.12

from leaf.experiment.errors import UserError, unknown
from leaf.experiment.files import write_text
from leaf.experiment.scales import Settings

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("not_unique", "has non-unique elements")
    return values


Item = TypeVar("Item")
Distinct = Annotated[list[Item], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]
NAME_PATTERN = "^[a-z0-9_]{1,64}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ONLY_NAMES = Field(json_schema_extra={"additionalProperties": False})
Text = Annotated[str, StringConstraints(min_length=1)]
Names = Annotated[Distinct[str], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[Distinct[Seed], Field(min_length=1)]


class Model(BaseModel):
    model_config = STRICT


OwnScale = TypedDict(
    "OwnScale",
    {
        "extends": Required[Annotated[str, Field(description="The scale whose settings are the defaults.")]],
        **{  # type: ignore[misc]  # mypy wants keys as literals
            setting.name: Annotated[setting.type, Field(**setting.metadata)] for setting in fields(Settings)
        },
        "seeds": Annotated[
            int | None, Field(ge=1, description="Use only the first N seeds of each experiment; null for all.")
        ],
    },
    total=False,
)
OwnScale.__pydantic_config__ = STRICT  # type: ignore[attr-defined]


class Block(TypedDict, total=False):
    """An item of an experiment: the product of its lists. The experiment's lists are the defaults."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    # Not docstrings, since pydantic does not find them for inherited keys.
    networks: Annotated[Names, Field(description="Names of networks.")]
    datasets: Annotated[Names, Field(description="Names of data sets.")]
    activations: Annotated[Names, Field(description="Names of activations.")]
    procedures: Annotated[Names, Field(description="Names of training procedures.")]
    optimizers: Annotated[Names, Field(description="Names of optimizers.")]
    seeds: Annotated[Seeds, Field(description="Seeds of the random streams.")]


class Experiment(Block, total=False):
    """A set of cells; its name is a target."""

    title: Required[str]
    """Name in tables, figures and the report."""
    in_all: bool
    """Include it in the target `all`; false by default."""
    cells: Required[Annotated[list[Block], Field(min_length=1)]]
    """Items; each is the product of its lists, and the experiment's lists are the defaults."""


class Checkpoint(Model):
    epochs: int = Field(default=1, ge=1, le=100_000)
    """Write the state after every N epochs."""
    minutes: float = Field(default=10, gt=0, le=10_080, allow_inf_nan=False)
    """Also write it N minutes after the last time; at most a week."""


class Tracking(Model):
    trackers: Distinct[Literal["tensorboard", "wandb"]] = []
    """Trackers that receive the metrics of every epoch."""
    directory: Text = "tracking"
    """Directory for their files."""
    wandb_mode: Literal["offline", "online"] = "offline"
    """Store the runs of Weights & Biases in files, or upload them."""
    wandb_project: Text = "leaf"
    """Project of the runs in Weights & Biases."""


class Statistics(Model):
    metric: Literal["auto", "best_accuracy", "final_accuracy", "last_epochs_accuracy", "chosen_accuracy"] = "auto"
    """Metric for comparing activations; `auto` is `chosen_accuracy` with validation images, else `best_accuracy`."""
    confidence: float = Field(default=0.95, gt=0, lt=1, allow_inf_nan=False)
    """Confidence level of the intervals; the significance level of the tests is 1 - confidence."""


class Configuration(Model):
    """The configuration of leaf."""

    scale: str = "quick"
    """Size and protocol of each cell's training: `quick`, `paper`, `sound`, or a key of `scales`."""
    scales: Annotated[dict[Name, OwnScale], ONLY_NAMES] = {}
    """Additional scales; each extends another one and changes some of its settings."""
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1), ONLY_NAMES]
    """Sets of cells; the name of each is a target."""
    plugins: Distinct[str] = []
    """Python files that register additional activations, networks or data sets."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; `auto` uses a GPU if there is one."""
    precision: Literal["float32", "tf32", "tf32-convolutions", "bfloat16"] = "float32"
    """Number format of the computation."""
    checkpoint: Checkpoint = Checkpoint()
    """Times at which the state is written. An interrupted cell resumes from it."""
    tracking: Tracking = Tracking()
    """Logging of the training to trackers."""
    statistics: Statistics = Statistics()
    """Comparison of activations."""
    figure_format: Literal["svg", "pdf", "png"] = "svg"
    """File format of the figures."""
    datasets_directory: str | None = None
    """Directory that is searched for the data sets' original files before a download; null for none."""


def validated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validate values as a configuration, and add the defaults of missing keys.

    Raises:
        UserError: with one line about the first wrong key.
    """
    try:
        return Configuration.model_validate(_with_present_names(values)).model_dump()
    except ValidationError as error:
        raise UserError(_explain(min(error.errors(), key=_place))) from None


def _with_present_names(values: Any) -> Any:
    """Rename the key ``guests``, the former name of ``plugins``."""
    if not isinstance(values, Mapping) or "guests" not in values:
        return values
    files, others = values["guests"], {key: value for key, value in values.items() if key != "guests"}
    if others.get("plugins") not in (None, [], files):
        raise UserError("guests: the former name of plugins, which is also given; remove guests")
    print("configuration: the key guests is now plugins; rename it", file=sys.stderr)
    return {**others, "plugins": files}


UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
LIMITS = {
    "greater_than_equal": "less than the minimum",
    "greater_than": "less than or equal to the minimum",
    "less_than_equal": "greater than the maximum",
    "less_than": "greater than or equal to the maximum",
}
"""Descriptions of a value that violates a limit, by pydantic's name of the error."""


def _place(error: ErrorDetails) -> tuple[list[str], bool]:
    """Return a sort key that puts a mapping's errors before those of its values, and unknown keys first."""
    unknown = error["type"] in UNKNOWN_KEY
    return [str(part) for part in error["loc"][: -1 if unknown or error["type"] == "missing" else None]], not unknown


def _explain(error: ErrorDetails) -> str:
    """Describe in one line what is wrong with a key and what would be right."""
    kind, path, value, limits = error["type"], list(error["loc"]), error["input"], error.get("ctx", {})
    about_key = path[-1:] == ["[key]"] and kind not in UNKNOWN_KEY
    if about_key:
        del path[-2:]
    key = path.pop() if kind in (*UNKNOWN_KEY, "missing") else None
    node = _node(path)
    where = ".".join(map(str, path)) or "configuration"
    if kind in UNKNOWN_KEY:
        return f"{where}: {unknown('key', key, node['properties'])}"
    if kind in LIMITS:
        return f"{where}: {value!r} is {LIMITS[kind]} of {next(iter(limits.values()))!r}"
    expected = "string" if about_key else " or ".join(choice["type"] for choice in node.get("anyOf", [node]))
    reasons = {
        "missing": f"{key!r} is a required property",
        "literal_error": f"{value!r} is not one of {', '.join(map(repr, node.get('enum', ())))}",
        "string_pattern_mismatch": f"{value!r} does not match {NAME_PATTERN[1:-1]}: a to z, 0 to 9 and _, at most 64",
        "not_unique": f"{value!r} has non-unique elements",
        "too_short": f"{value!r} should be non-empty",
        "string_too_short": f"{value!r} should be non-empty",
        "finite_number": f"expected a finite number, found {value!r}",
    }
    return f"{where}: {reasons.get(kind, f'expected {expected}, found {value!r}')}"


# --- files that are generated from the models -------------------------------------------------------------------------

COMMAND = "python -m leaf.experiment.schema --fix"
SCHEMA = Path("workflow/schemas/config.schema.yaml")
PAGE = Path("docs/configuration.md")
MARK = f"<!-- The rest of the page is generated from the models: {COMMAND} -->\n"


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration, with all definitions inlined."""
    schema = Configuration.model_json_schema()
    definitions = schema.pop("$defs")

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if not isinstance(node, dict):
            return node
        whole = definitions.get(node.get("$ref", "").split("/")[-1], {}) | node
        whole.pop("$ref", None)
        if isinstance(whole.get("title"), str):  # generated by pydantic; otherwise it is a key of the configuration
            del whole["title"]
        return {key: inlined(value) for key, value in whole.items()}

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **inlined(schema)}


def _node(path: Sequence[int | str]) -> dict[str, Any]:
    """Return the part of the JSON schema that describes the value at a path in a configuration."""
    node = json_schema()
    for part in path:
        named = node.get("properties", {}) | ({part: node["items"]} if "items" in node else {})
        node = named.get(part) or next(iter(node["patternProperties"].values()))
    return node


def _rows(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the rows of the documentation's table for a mapping of the schema and the mappings in it."""
    for key, child in node["properties"].items():
        given = f"`{json.dumps(child['default'])}`" if "default" in child and "properties" not in child else ""
        default = "required" if key in node.get("required", ()) else given
        yield f"| `{prefix}{key}` | {_type(child)} | {default} | {' '.join(child['description'].split())} |"
        for where, below in {
            ".": child,
            ".NAME.": next(iter(child.get("patternProperties", {}).values()), {}),
            "[].": child.get("items", {}),
        }.items():
            if "properties" in below:
                yield from _rows(below, f"{prefix}{key}{where}")


def _type(node: Mapping[str, Any]) -> str:
    """Describe the type, choices and limits of a key."""
    if "anyOf" in node:
        return " or ".join(_type(choice) for choice in node["anyOf"])
    if "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node["enum"])
    if "items" in node:
        return f"list of {_type(node['items'])}"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([node["type"], *(f"{sign} {node[limit]}" for limit, sign in limits.items() if limit in node)])


def generated() -> dict[Path, str]:
    """Return the contents of the generated files. The page keeps its text above the mark."""
    schema = f"# Generated from the models in leaf.experiment.schema: {COMMAND}\n" + yaml.safe_dump(
        json_schema(), sort_keys=False, allow_unicode=True, width=120
    )
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *_rows(json_schema())]
    above = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    return {SCHEMA: schema, PAGE: above + MARK + "\n" + "\n".join(table) + "\n"}


def main(arguments: Sequence[str]) -> None:
    """Compare the generated files in the working directory with the models, or write them with ``--fix``."""
    stale = False
    for file, right in generated().items():
        found = file.read_text(encoding="utf-8") if file.exists() else ""
        if "--fix" in arguments:
            write_text(file, right)
        elif found != right:
            stale = True
            lines = (found.splitlines(), right.splitlines())
            print(*difflib.unified_diff(*lines, str(file), "the models", lineterm=""), sep="\n")
    if stale:
        sys.exit(f"the models and these files differ; {COMMAND} writes the files")


if __name__ == "__main__":
    main(sys.argv[1:])
