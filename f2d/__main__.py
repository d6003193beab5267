"""`python -m f2d`: the same as the `f2d` command."""

from f2d.cli.app import main

if __name__ == "__main__":
    main()
