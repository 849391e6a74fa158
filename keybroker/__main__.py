"""`python -m keybroker` is the command `keybroker`."""

from __future__ import annotations

from keybroker.cli import main

if __name__ == "__main__":
    main()
