"""`python -m study`: the command of the study, wherever the environment's own scripts lead."""

from study.cli import main

if __name__ == "__main__":
    main()
