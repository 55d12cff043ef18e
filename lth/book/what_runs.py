"""The table of what each preset runs, chapter by chapter, from the presets themselves."""

from __future__ import annotations

from lth.book import CHAPTERS
from lth.book.badge import named
from lth.book.presets import PRESETS, parameters
from lth.book.scorecard import heading, number_of
from lth.book.settings.base import Settings
from lth.book.text import escape

MARK = "<!-- what each preset runs -->"  # on the page "How to run it again"


def table() -> str:
    """Markdown: a row per chapter, a column per preset but the tests' and `imagenet`, which is `paper` and more."""
    shown = [preset for preset in PRESETS if preset not in ("smoke", "imagenet")]
    lines = ["| Chapter | " + " | ".join(f"`{preset}`" for preset in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for chapter in CHAPTERS:
        cells = [in_words(parameters(chapter, preset)) for preset in shown]
        lines.append(f"| {number_of(chapter)}. {escape(heading(chapter))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def in_words(settings: Settings) -> str:
    """«ResNet-8 on MNIST, n = 9, 1,000 steps»"""
    values = settings.model_dump()
    long = f"{values['steps']:,} steps" if "steps" in values else f"{values['epochs']} epochs a round"
    data = "digits" if values["dataset"] == "digits" else named(values["dataset"])
    return f"{named(settings.models[0])} on {data}, n = {values['seeds']}, {long}"
