"""How long and on how much data a cell trains. What stands here is fixed and means the same everywhere.

- ``quick``: every experiment at a size for a laptop.
- ``paper``: the published experiment.
- ``sound``: the same by today's rules: shuffled, and the epoch chosen on images that are neither trained nor tested on.
"""

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
        validation_images: the last so many of those training images, which are kept out of training to choose an epoch
            by; the published experiment has none, and chooses on the test images.
        shuffle: whether every epoch takes the training images in an order of its own; the published one doesn't.
    """

    epochs: int = 100
    batch_size: int = 128
    train_images: int | None = None
    test_images: int | None = None
    validation_images: int = 0
    shuffle: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.shuffle, bool):
            raise UserError(f"settings: shuffle must be true or false, not {self.shuffle!r}")
        for name, value in asdict(self).items():
            least = 0 if name == "validation_images" else 1
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if name != "shuffle" and not whole and not (value is None and name in ("train_images", "test_images")):
                raise UserError(f"settings: {name} must be a whole number above {least - 1}, not {value!r}")
        if self.train_images is not None and self.validation_images >= self.train_images:
            raise UserError(
                f"settings: {self.validation_images} validation_images leave none of {self.train_images} train_images"
            )

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
    """A named size of the experiment: the cells' settings, and how many of an experiment's seeds it uses.

    Attributes:
        continues: the name of the scale that it extends, if it differs from that at most in having more epochs: its
            cells go on from the other's states.
    """

    settings: Settings = field(default_factory=Settings)
    seeds: int | None = None
    continues: str | None = None


SCALES: dict[str, Scale] = {
    "quick": Scale(Settings(epochs=3, train_images=1280, test_images=1000), seeds=1),
    "paper": Scale(),
    "sound": Scale(Settings(shuffle=True, validation_images=5000)),
}


NO_SCALES = ("shipped", "benchmark")
"""What stands beside the scales' reports, and so can be no scale's name."""


def resolve_scales(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Scale]:
    """``SCALES`` and a user's own, each of which starts from the scale that it ``extends``, in whatever order.

    Raises:
        UserError: if an own scale has a fixed one's name, or extends one that doesn't exist or, in the end, itself.
    """
    for name in own:
        if name in SCALES:
            raise UserError(f"scales.{name}: what {name!r} means is fixed; give your scale a name of its own")
        if name in NO_SCALES:
            raise UserError(f"scales.{name}: reports/{name} is taken; give your scale another name")
    scales, others = dict(SCALES), dict(own)
    while others:
        ready = [name for name, changes in others.items() if changes["extends"] in scales]
        for name in ready:
            scales[name] = _extended(scales, others.pop(name))
        if not ready:
            for name, changes in others.items():
                if changes["extends"] not in others:
                    known = ", ".join((*SCALES, *own))
                    raise UserError(f"scales.{name}.extends: unknown scale {changes['extends']!r}; known: {known}")
            raise UserError(f"scales: {', '.join(others)}: extends goes in a circle")
    return scales


def _extended(scales: Mapping[str, Scale], changes: Mapping[str, Any]) -> Scale:
    """A user's own scale, whose changes to one of ``scales`` are given."""
    parent = changes["extends"]
    extended = scales[parent].settings
    names = {setting.name for setting in fields(Settings)}
    settings = replace(extended, **{key: changes[key] for key in changes if key in names})
    longer = extended.epochs <= settings.epochs and replace(extended, epochs=settings.epochs) == settings
    return Scale(settings, changes.get("seeds", scales[parent].seeds), parent if longer else None)
