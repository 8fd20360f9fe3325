"""The command `study`, also as `python -m study`: imports nothing before Ctrl-C can end it in one line."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from study.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("study: interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
