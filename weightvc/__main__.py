"""``python -m weightvc`` is ``wvc``."""

from weightvc.cli.main import run

if __name__ == "__main__":
    run()
