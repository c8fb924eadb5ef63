"""The command `ntm`, and its twin `python -m ntm_lab`."""

import sys

INTERRUPTED = 130


def main() -> int:
    """Run one command, as `ntm_lab.cli.main` does, and return its status."""
    try:
        # Imported here, because Ctrl-C may come while it is.
        from ntm_lab import cli

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
