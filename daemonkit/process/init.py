"""The first process of a container: it starts the daemon, hands on its signals and reaps orphans.

The kernel gives every orphan to process 1, which must reap it. A daemon cannot: it could not tell
orphans from children that its own code still waits for. So a daemon that finds itself to be
process 1 executes this file, which is a program of its own and imports nothing of daemonkit.
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
    """Have this command run as a child of a small init, if it is process 1; else do nothing."""
    if os.getpid() == 1:
        program, *arguments = sys.orig_argv
        path = program if os.sep in program else sys.executable
        command = [sys.executable, "-S", "-E", __file__, path, program, *arguments]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, command)


def main(path: str, command: Sequence[str]) -> NoReturn:
    """Run a command until it ends, and end with its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDED_ON, signal.SIGCHLD})
    child = os.posix_spawn(path, list(command), os.environ, setsigmask=())
    while True:
        found = signal.sigwaitinfo({*HANDED_ON, signal.SIGCHLD})
        if found.si_signo == signal.SIGCHLD:
            _reap(child)
        elif found.si_code <= 0:  # by kill(2); what a terminal sends, it sends to the child, too
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
