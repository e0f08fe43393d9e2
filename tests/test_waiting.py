"""Waits of the test harnesses terminate."""

import subprocess

import pytest
from waiting import wait_for_end, wait_until


def test_a_condition():
    looks = iter([False, False, True])
    wait_until(lambda: next(looks), "the third look", every=0)
    assert next(looks, None) is None
    with pytest.raises(TimeoutError, match=r"waited 0\.1 s for a miracle"):
        wait_until(lambda: False, "a miracle", seconds=0.1)


def test_a_process_that_ignores_sigint_as_in_the_background_of_a_script():
    assert wait_for_end(subprocess.Popen(["sh", "-c", "exit 3"]), "a shell") == 3
    process = subprocess.Popen(["sh", "-c", "trap '' INT; echo ready; exec sleep 60"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(2)
    with pytest.raises(TimeoutError, match=r"waited 0\.2 s for the sleeper to end"):
        wait_for_end(process, "the sleeper", seconds=0.2)
    assert process.returncode == -9
