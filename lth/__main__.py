"""`python -m lth` is the command `lth`; so does `torchrun … -m lth` start it."""

from __future__ import annotations

from lth.book.cli import app

if __name__ == "__main__":
    app()
