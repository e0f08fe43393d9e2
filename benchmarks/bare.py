"""Import this module before ``leaf`` to train without safetensors, which only files need."""

import sys
from importlib.util import find_spec
from types import ModuleType

if find_spec("safetensors") is None:
    for name in ("safetensors", "safetensors.numpy"):
        sys.modules[name] = ModuleType(name)
