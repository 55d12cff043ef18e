"""From a population to a page: presets, the store of runs, claims, figures, the runner, the site."""

from __future__ import annotations

# command-line name → notebook, in the order of the book
CHAPTERS: dict[str, str] = {
    "gradient_flow": "notebooks/01_gradient_flow.ipynb",
    "dst_updates": "notebooks/02_dst_updates.ipynb",
    "lt_basin": "notebooks/03_lt_basin.ipynb",
    "tweaks": "notebooks/04_tweaks.ipynb",
    "rti_repulsion": "notebooks/05_rti_repulsion.ipynb",
    "lcs_geometry": "notebooks/06_lcs_geometry.ipynb",
}
