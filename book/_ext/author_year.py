"""References that are called what the text calls them: by author and year."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


class Labels(BaseLabelStyle):
    """«Evci et al., 2022»: as `bibtex_reference_style: author_year` writes them in the text."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        for entry in sorted_entries:
            names = [" ".join([*person.prelast_names, *person.last_names]) for person in entry.persons["author"]]
            who = names[0] + (f" and {names[1]}" if len(names) == 2 else " et al." if len(names) > 2 else "")
            yield f"{who}, {entry.fields['year']}"


class Style(Plain):
    default_label_style = Labels


def setup(app: Sphinx) -> dict[str, bool]:
    register_plugin("pybtex.style.formatting", "author_year", Style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
