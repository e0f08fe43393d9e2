"""A real SLURM cluster of one node on this machine's loopback, without systemd, with its own configuration.

It needs root and Debian's packages `slurm-wlm` and `munge`. It reads and writes only its own
directory, and so does not affect a cluster configuration of this machine:

    python tests/slurm_cluster.py DIRECTORY    # until Ctrl-C; prints the exports for sbatch, squeue and Snakemake
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

# Jobs of `urgent` preempt those of `main`, which are queued again, and those of `cancelling`, which are cancelled.
# Intervals are seconds where SLURM's defaults are minutes. KillWait is the time from SIGTERM to SIGKILL. A requeued job
# waits for cred_expire before it starts.
CONFIGURATION = """
ClusterName=leaf
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={directory}/controller
SlurmdSpoolDir={directory}/node
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MinJobAge=300
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory}
PartitionName=main Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cancelling Nodes={host} PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes={host} PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str | None:
    """The reason why no cluster can run here; ``None`` if it can."""
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    if absent:
        return f"{', '.join(absent)} not found; Debian's packages slurm-wlm and munge have them"
    return None if os.geteuid() == 0 else "starting SLURM's daemons takes root"


class Cluster:
    """The cluster, from ``start`` to ``stop``.

    Attributes:
        environment: variables with which SLURM's commands and Snakemake find the cluster.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.environment = {
            "SLURM_CONF": str(self.directory / "slurm.conf"),
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        for name in ("controller", "node", "bin"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        configuration = CONFIGURATION.format(
            host=socket.gethostname(),
            directory=self.directory,
            controller_port=_free_port(),
            node_port=_free_port(),
            cores=os.cpu_count(),
            memory=pages * page // 2**20,
        )
        (self.directory / "slurm.conf").write_text(configuration)
        (self.directory / "cgroup.conf").write_text("CgroupAutomount=no\n")
        key = self.directory / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.directory.chmod(0o755)
        # Snakemake's plugin removes all SLURM variables from srun's environment, including SLURM_CONF.
        srun = self.directory / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.directory}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        self.run("munged", "--force", *(f"--{name}={self.directory}/munge.{end}" for name, end in files.items()))
        self.run("slurmctld")
        self.run("slurmd")
        logs = f"the node to come up; see {self.directory}/slurmctld.log and slurmd.log"
        wait_until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t", check=False), logs, seconds=30)

    def stop(self) -> None:
        """Stop all jobs, then the daemons."""
        self.run("scancel", "--user=root", "--signal=KILL", "--full", check=False)
        self.run("scancel", "--user=root", check=False)
        for name in ("slurmd", "slurmctld", "munge"):
            self.end(name)

    def end(self, daemon: str) -> None:
        """Stop one daemon, if it runs, by the process id in its file."""
        file = self.directory / f"{daemon}.pid"
        if not file.exists():
            return
        process = int(file.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
        command_line = Path(f"/proc/{process}/cmdline")
        # A zombie process has an empty command line.
        wait_until(lambda: not command_line.exists() or not command_line.read_bytes(), f"{daemon} to end")

    def run(self, *command: str, check: bool = True) -> str:
        """Output of a SLURM program."""
        environment = os.environ | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    if reason := missing():
        sys.exit(f"no cluster: {reason}")
    with Cluster(Path(sys.argv[1])) as cluster:
        print(*(f"export {name}={value}" for name, value in cluster.environment.items()), sep="\n", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
