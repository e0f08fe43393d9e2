"""Record the values of the golden test: run as `python tests/record_golden.py`, after raising TRAINING_VERSION."""

import json

from conftest import FIXTURES, PROJECT
from test_training import golden_record

from leaf.experiment.datasets import dataset_file
from leaf.experiment.loading import Data, load


def data(name: str, train_images: int, test_images: int) -> Data:
    return load(name, PROJECT / dataset_file(name), train_images, test_images)


(FIXTURES / "golden.json").write_text(json.dumps(golden_record(data), indent=1) + "\n")
