"""Text from outside (names of data sets and devices, notes) on a page that is written in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SIGNS = re.compile(r"([\\`*_{}\[\]<>$|&~^#])")
BREAKS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


class Markup(str):
    """Text that is Markdown already, such as a verdict in its colour."""


def escape(text: object) -> str:
    """Any text as MyST Markdown, in one line, that shows it sign by sign; Markup stays as it is."""
    return text if isinstance(text, Markup) else SIGNS.sub(r"\\\1", BREAKS.sub(" ", str(text)))


def with_values(caption: str, values: Mapping[str, Any]) -> str:
    """A caption with each parameter that it names, `images`, replaced by what it was: «60,000 training images»."""

    def told(name: re.Match[str]) -> str:
        value = values.get(name[1])
        whole = isinstance(value, int) and not isinstance(value, bool)
        return f"{value:,}" if whole else f"{value:g}" if isinstance(value, float) else name[0]

    return re.sub(r"`(\w+)`", told, caption)
