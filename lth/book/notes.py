"""The notes of the published edition, book/editions/notes/CHAPTER.md: what came out, how it differs from the paper.

Other editions have none.
"""

from __future__ import annotations

import re
from pathlib import Path

from lth.book import verdicts

HEADING = "### What came out"


def words(edition: Path, chapter: str) -> str:
    """What the chapter's note says came out in the published edition; "" where it says nothing, and of others."""
    note = verdicts.PUBLISHED.with_name("notes") / f"{chapter}.md"
    if edition != verdicts.PUBLISHED or not note.is_file():
        return ""
    _, _, rest = note.read_text(encoding="utf-8").partition(HEADING + "\n")
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0].strip()


def differences(edition: Path, chapter: str) -> str:
    """What the chapter's note says else, as a section of the chapter's page with the label differs-CHAPTER."""
    note = verdicts.PUBLISHED.with_name("notes") / f"{chapter}.md"
    if edition != verdicts.PUBLISHED or not note.is_file():
        return ""
    parts = re.split(r"^(?=### )", note.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rest = "".join(part for part in parts if part.strip() and not part.startswith(HEADING)).strip()
    return f"(differs-{chapter})=\n" + re.sub(r"^###", "##", rest, flags=re.MULTILINE) if rest else ""
