"""Scales: epochs, images and protocol of a cell's training. The scales of this module are fixed.

- ``quick``: few images and epochs, for a laptop.
- ``paper``: the published experiment.
- ``sound``: the same with shuffled minibatches, and with the epoch selected on images held out from training.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from leaf.experiment.errors import UserError, unknown


def _setting(default: Any, description: str, **limits: int) -> Any:
    """Define a field of ``Settings`` with its description and limits, ``ge`` and ``le``, for the JSON schema too."""
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True)
class Settings:
    """Settings that affect a cell's results. The defaults are those of the published experiment.

    Raises:
        UserError: if a value is not of its type or not within its limits.
    """

    epochs: int = _setting(100, "Passes over the training images.", ge=1, le=100_000)
    batch_size: int = _setting(128, "Training images per minibatch.", ge=1, le=100_000)
    train_images: int | None = _setting(None, "Use only the first N training images; null for all.", ge=1)
    test_images: int | None = _setting(None, "Use only the first N test images; null for all.", ge=1)
    validation_images: int = _setting(
        0, "Hold out the last N of the training images, and choose the best epoch on them instead of on the test"
        " images.", ge=0,
    )  # fmt: skip
    shuffle: bool = _setting(False, "Shuffle the training images in every epoch.")

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, kind, limits = getattr(self, setting.name), cast(Any, setting.type), setting.metadata
            fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            if not fits or not (value is None or limits.get("ge", value) <= value <= limits.get("le", value)):
                most = f" to {limits['le']}" if "le" in limits else " upwards"
                right = f"a whole number from {limits['ge']}{most}" if "ge" in limits else "true or false"
                raise UserError(f"settings: {setting.name} must be {right}, not {value!r}")
        if self.train_images is not None and self.validation_images >= self.train_images:
            raise UserError(
                f"settings: {self.validation_images} validation_images leave none of {self.train_images} train_images"
            )

    def check_images(self, dataset: str, images: Mapping[str, int], where: str = "") -> None:
        """Check that a data set has enough images for the settings.

        Args:
            dataset: the data set's name.
            images: its number of images for ``"train"`` and ``"test"``.
            where: prefix of the error message.

        Raises:
            UserError: if it has too few, or the validation images leave none to train on.
        """
        for split, there in images.items():
            wanted = getattr(self, f"{split}_images")
            if wanted is not None and wanted > there:
                raise UserError(f"{where}{split}_images {wanted} is more than {dataset}'s {there}; null uses all")
        kept = self.train_images or images["train"]
        if self.validation_images >= kept:
            raise UserError(
                f"{where}{self.validation_images} validation_images leave none of {dataset}'s {kept} training images"
            )

    def to_json(self) -> str:
        """Convert to canonical JSON: equal settings give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Scale:
    """A scale.

    Attributes:
        settings: settings of its cells.
        seeds: number of each experiment's seeds that it uses, from the first; ``None`` for all.
        continues: name of the extended scale, if this one differs from it only in having at least as many epochs. Its
            cells then resume from that scale's states.
    """

    settings: Settings = field(default_factory=Settings)
    seeds: int | None = None
    continues: str | None = None


SCALES: dict[str, Scale] = {
    "quick": Scale(Settings(epochs=3, train_images=1280, test_images=1000), seeds=1),
    "paper": Scale(),
    "sound": Scale(Settings(shuffle=True, validation_images=5000)),
}


def resolve_scales(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Scale]:
    """Combine ``SCALES`` with a user's scales, each of which ``extends`` another one.

    Raises:
        UserError: if a user's scale has the name of a fixed one, or extends an unknown scale or, indirectly, itself.
    """
    known = [*SCALES, *own]
    for name, changes in own.items():
        if name in SCALES:
            raise UserError(f"scales.{name}: {name!r} is a fixed scale; choose another name")
        if changes["extends"] not in known:
            raise UserError(f"scales.{name}.extends: {unknown('scale', changes['extends'], known)}")
    parents = {name: [changes["extends"]] for name, changes in own.items()}
    try:
        order = [name for name in TopologicalSorter(parents).static_order() if name in own]
    except CycleError as error:
        raise UserError(f"scales: {', '.join(sorted(set(error.args[1])))}: extends is circular") from None
    scales = dict(SCALES)
    for name in order:
        try:
            scales[name] = _extended(scales, own[name])
        except UserError as error:
            raise UserError(f"scales.{name}: {error}") from None
    return scales


def _extended(scales: Mapping[str, Scale], changes: Mapping[str, Any]) -> Scale:
    """Apply a user's changes to one of ``scales``."""
    parent = changes["extends"]
    extended = scales[parent].settings
    names = {setting.name for setting in fields(Settings)}
    settings = replace(extended, **{key: changes[key] for key in changes if key in names})
    longer = extended.epochs <= settings.epochs and replace(extended, epochs=settings.epochs) == settings
    return Scale(settings, changes.get("seeds", scales[parent].seeds), parent if longer else None)
