"""What can be set in each chapter: types, ranges and meaning. The defaults are the papers' own settings.

A module for each chapter, with what the presets set in place of these (`lth.book.presets`). `Settings.check` says
whether a data set is large enough, before anything is trained.
"""

from lth.book.settings import dst_updates, gradient_flow, lcs_geometry, lt_basin, rti_repulsion, tweaks
from lth.book.settings.base import Presets, Settings

CHAPTER_PARAMETERS: dict[str, type[Settings]] = {
    "gradient_flow": gradient_flow.GradientFlow,
    "dst_updates": dst_updates.DSTUpdates,
    "lt_basin": lt_basin.LTBasin,
    "tweaks": tweaks.Tweaks,
    "rti_repulsion": rti_repulsion.RTIRepulsion,
    "lcs_geometry": lcs_geometry.LCSGeometry,
}
VALUES: dict[str, Presets] = {
    "gradient_flow": gradient_flow.VALUES,
    "dst_updates": dst_updates.VALUES,
    "lt_basin": lt_basin.VALUES,
    "tweaks": tweaks.VALUES,
    "rti_repulsion": rti_repulsion.VALUES,
    "lcs_geometry": lcs_geometry.VALUES,
}
