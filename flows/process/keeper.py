"""Run one command and stop it when the process that requested it is gone, even if that process was killed.

Used as ``python -m medphantom.flows.process.keeper COMMAND …``: a server must not outlive the schedule that it serves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

SECONDS_TO_STOP = 10.0
SECONDS_PER_LOOK = 0.5


def keep(command: list[str], parent: int) -> int:
    """Run ``command`` until it ends, a signal requests its end, or ``parent`` is no longer the parent of this process.

    Returns:
        The exit status of the command.
    """
    child = subprocess.Popen(command)

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the parent decides
    while child.poll() is None and os.getppid() == parent:
        time.sleep(SECONDS_PER_LOOK)
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:], os.getppid()))
