"""`python -m figures` is `loss-threshold`."""

from figures.cli import main

if __name__ == "__main__":
    main()
