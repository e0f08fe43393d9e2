"""Run Snakemake in processes forked from one that has imported it, since the import takes half of a dry run's time.

    python tests/snakemake_server.py    # reads a request per line, writes an exit status per line

A request has the arguments of `run` as JSON. The server does not import leaf; each fork imports that of its
project.
"""

import json
import os
import signal
import sys

from snakemake.cli import get_argument_parser, main


def run(command: list[str], directory: str, environment: dict[str, str], outputs: list[str]) -> None:
    """Run the command ``snakemake`` in this process; ``outputs`` are files for standard output and standard error."""
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = command
    for descriptor, file in enumerate([os.devnull, *outputs]):
        os.dup2(os.open(file, os.O_RDWR), descriptor)
    signal.alarm(900)  # ends a run that hangs
    main()


if __name__ == "__main__":
    get_argument_parser()  # imports the plugins
    for line in sys.stdin:
        if not (child := os.fork()):
            run(*json.loads(line))
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
