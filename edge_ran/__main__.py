"""The door: ``edge-ran`` is ``python -m edge_ran``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it without a word while it is still imported, too, and while Python goes."""
    try:
        from edge_ran.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
