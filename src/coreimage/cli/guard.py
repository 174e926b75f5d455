"""The program between a builder and its build: when it ends, nothing of the build is left.

Called as `python -m coreimage.cli.guard SECONDS COMMAND...`; it imports nothing heavy.
"""

import os
import resource
import signal
import sys

from coreimage.errors import CoreImageError
from coreimage.lib.reap import run_reaped


def main() -> None:
    """Run a command with all its descendants, and end as it ended."""
    grace, *argv = sys.argv[1:]
    try:
        status = run_reaped(argv, grace=float(grace))
    except CoreImageError as error:
        print(f"coreimage: error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # SIGKILL and SIGSTOP have no handler to reset.
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
