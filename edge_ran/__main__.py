"""``python -m edge_ran`` is ``edge-ran``."""

from edge_ran.cli import main

if __name__ == "__main__":
    main()
