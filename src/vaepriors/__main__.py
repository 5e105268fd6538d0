"""`python -m vaepriors` is the command line."""

from vaepriors.cli import main

if __name__ == "__main__":
    main()
