"""The command `pat`, also as `python -m pat`: imports nothing before Ctrl-C can end it in one line."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from pat.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("pat: interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
