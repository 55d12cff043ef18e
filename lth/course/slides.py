"""Slides of a session, made of its notebook: text and figures as pages of reveal.js, the teacher's notes beside them.

reveal.js is taken out of the package sphinx-revealjs and lies beside the slides, as MathJax does: nothing comes from
the network.
"""

from __future__ import annotations

import html
import shutil
from pathlib import Path

from nbformat import NotebookNode

from lth.files import ROOT, write_text

PARTS = ("dist", "plugin/markdown", "plugin/math", "plugin/notes")  # of reveal.js
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/dist/reveal.css">
<link rel="stylesheet" href="reveal/dist/theme/white.css">
<style>.reveal {{ font-size: 26px }} .reveal section {{ text-align: left }} .reveal h1 {{ font-size: 1.8em }}
.reveal h2 {{ font-size: 1.3em }} .reveal h1, .reveal h2 {{ text-transform: none }} .reveal img {{ max-height: 60vh }}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/dist/reveal.js"></script>
<script src="reveal/plugin/markdown/markdown.js"></script>
<script src="reveal/plugin/math/math.js"></script>
<script src="reveal/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{ hash: true, mathjax3: {{ mathjax: "mathjax/tex-mml-chtml.js" }},
  plugins: [RevealMarkdown, RevealMath.MathJax3, RevealNotes] }});
</script>
</body>
</html>
"""


def write_slides(notebook: NotebookNode, path: Path, notes: str, figures: dict[str, str]) -> Path:
    """Writes the slides of an executed notebook, and what they need beside them.

    notes: the tag of cells that become the speaker's notes of the slide before them. figures: cell → picture, base64.
    """
    from sphinx_revealjs import __file__ as package

    slides: list[str] = []
    for cell in notebook.cells:
        if notes in cell.metadata.get("tags", []):
            more = "" if "\nNote:\n" in slides[-1] else "\nNote:"  # reveal.js knows one for each slide
            slides[-1] += f"\n{more}\n{cell.source}"
        elif cell.id in figures:
            caption = cell.metadata["mystnb"]["figure"]["caption"]
            slides.append(f"![{caption}](data:image/png;base64,{figures[cell.id]})\n\n{caption}")
        elif cell.cell_type == "markdown" and "nbgrader" not in cell.metadata:
            slides.append(cell.source)
    told = "\n".join(
        f"<section data-markdown><textarea data-template>\n{html.escape(slide, quote=False)}\n</textarea></section>"
        for slide in slides
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    reveal = Path(package).parent / "_static" / "revealjs"
    for part in PARTS:
        shutil.copytree(reveal / part, path.parent / "reveal" / part, dirs_exist_ok=True)
    shutil.copytree(ROOT / "book" / "_static" / "mathjax", path.parent / "mathjax", dirs_exist_ok=True)
    write_text(path, PAGE.format(title=slides[0].splitlines()[0].lstrip("# "), slides=told))
    return path
