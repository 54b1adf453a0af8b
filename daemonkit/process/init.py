"""A small init for containers: it starts the daemon, forwards signals and reaps orphans.

The kernel makes process 1 the parent of every orphan, and process 1 must reap it. A daemon cannot:
it could not tell orphans from children that its own code still waits for. So a daemon that is
process 1 executes this file, a program of its own that imports nothing of daemonkit.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

HANDED_ON = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}


def leave_process_1() -> None:
    """If this process is process 1, replace it by a small init that runs this command."""
    if os.getpid() == 1:
        program, *arguments = sys.orig_argv
        path = program if os.sep in program else sys.executable
        command = [sys.executable, "-S", "-E", __file__, path, program, *arguments]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, command)


def main(path: str, command: Sequence[str]) -> NoReturn:
    """Run a command until it ends, and exit with its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDED_ON, signal.SIGCHLD})
    child = os.posix_spawn(path, list(command), os.environ, setsigmask=())
    while True:
        found = signal.sigwaitinfo({*HANDED_ON, signal.SIGCHLD})
        if found.si_signo == signal.SIGCHLD:
            _reap(child)
        elif found.si_code <= 0:  # by kill(2); a terminal signals the child itself
            os.kill(child, found.si_signo)


def _reap(child: int) -> None:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            sys.exit(code if code >= 0 else 128 - code)
        if not pid:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
