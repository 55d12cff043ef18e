"""The kinds of failure a user can meet."""

from __future__ import annotations


class LthError(Exception):
    """Something went wrong while working: the message names the cause and the way out (exit code 1)."""


class UsageError(LthError):
    """What was asked for cannot be done as it was asked: found before any work starts (exit code 2)."""


class Stopped(LthError):
    """Work was stopped before its end and kept; the same command goes on from there (exit code 75)."""
