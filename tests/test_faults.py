"""The kinds of fault that take seconds, once each; `make faults` injects all of them, many times."""

import random

import pytest
from faults import KINDS, Site, inject


@pytest.fixture(scope="session")
def site(data, tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"), random.Random(2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "Snakemake" not in kind])
def test_nothing_is_lost(site, kind):
    tally = inject(site, kind, 1)
    assert tally.injected == 1
    assert not tally.wrong
    assert max(tally.repeated, default=0) <= (2 if kind == "newest state damaged" else 1)
