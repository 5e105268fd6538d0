"""The entry point of the command line, and `python -m vaepriors`.

Nothing of the package is imported before `main` is called: Ctrl-C while torch is loaded ends without a traceback, too.
"""

import sys

__all__ = ["main"]


def main() -> None:
    try:
        from vaepriors import cli

        cli.main()
    except KeyboardInterrupt:
        print("vaepriors: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
