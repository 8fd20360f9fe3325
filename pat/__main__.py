"""`python -m pat`: the command line, wherever the environment's own scripts lead."""

from pat.cli import main

if __name__ == "__main__":
    main()
