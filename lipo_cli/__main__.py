"""`python -m lipo_cli` is `lipo`: macOS has a `/usr/bin/lipo` of its own."""

from lipo_cli.main import run

if __name__ == "__main__":
    run()
