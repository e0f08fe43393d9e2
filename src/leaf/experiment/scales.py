"""How long and on how much data a cell trains. ``quick`` and ``paper`` are fixed here and mean the same everywhere."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from leaf.experiment.errors import UserError


@dataclass(frozen=True)
class Settings:
    """All that changes a cell's results beside the cell itself. The defaults are the published experiment's.

    Attributes:
        epochs: passes over the training images.
        batch_size: training images per minibatch.
        train_images: the first so many training images; ``None`` for all.
        test_images: the first so many test images; ``None`` for all.
    """

    epochs: int = 100
    batch_size: int = 128
    train_images: int | None = None
    test_images: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not whole and not (value is None and name in ("train_images", "test_images")):
                raise UserError(f"settings: {name} must be a whole number above 0, not {value!r}")

    def to_json(self) -> str:
        """Canonical JSON: equal settings give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """The settings that ``to_json`` wrote.

        Raises:
            UserError: if the text is not such JSON.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise UserError(f"--settings {text!r}: {error}; expected JSON such as {cls().to_json()}") from None


@dataclass(frozen=True)
class Scale:
    """A named size of the experiment: the cells' settings, and how many of an experiment's seeds it uses."""

    settings: Settings = field(default_factory=Settings)
    seeds: int | None = None


SCALES: dict[str, Scale] = {
    "quick": Scale(Settings(epochs=3, train_images=1280, test_images=1000), seeds=1),
    "paper": Scale(),
}


def resolve_scales(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Scale]:
    """``SCALES`` and a user's own, each of which starts from the scale that it ``extends``.

    Raises:
        UserError: if an own scale has a fixed one's name, or extends one that doesn't exist or comes later.
    """
    scales = dict(SCALES)
    for name, changes in own.items():
        if name in SCALES:
            raise UserError(f"scales.{name}: what {name!r} means is fixed; give your scale a name of its own")
        parent = changes["extends"]
        if parent not in scales:
            raise UserError(f"scales.{name}.extends: unknown scale {parent!r}; known here: {', '.join(scales)}")
        names = {setting.name for setting in fields(Settings)}
        settings = replace(scales[parent].settings, **{key: changes[key] for key in changes if key in names})
        scales[name] = Scale(settings, changes.get("seeds", scales[parent].seeds))
    return scales
