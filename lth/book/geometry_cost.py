"""What chapter 6 costs at the paper's own scale, counted in trainings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lth.book import speed
from lth.book.settings.lcs_geometry import LCSGeometry
from lth.book.text import Markup, escape

TEST_IMAGES = 10_000  # of CIFAR-10: what errors along lines are of


def trainings(settings: LCSGeometry) -> pd.DataFrame:
    """How many trainings a run takes at most for each purpose: `what`, `trainings`.

    Measuring is counted in images: a product with the Hessian is two passes forwards and backwards, a network that is
    evaluated a third of one.
    """
    s = settings
    trained = s.steps * s.batch_size  # images in one training
    products = s.seeds * len(s.probed) * s.lanczos_runs * s.lanczos_steps
    lines = s.seeds * s.points * (s.rounds * (len(s.rewind_steps) + 1) + (s.rounds + 1) ** 2 / 2)
    work = s.trainings() | {
        "products with the Hessian": products * s.lanczos_images * 2 / trained,
        "errors along lines": 2 * lines * TEST_IMAGES / 3 / trained,
    }
    return pd.DataFrame({"what": work.keys(), "trainings": np.round(list(work.values())).astype(int)})


def on_machines(cost: pd.DataFrame, settings: LCSGeometry) -> pd.DataFrame:
    """The same for a table of text, and the days that all of it takes on each machine that was measured."""
    rows = [(row.what, str(row.trainings), "") for row in cost.itertuples()]
    whole = cost.trainings.sum()
    for machine in speed.fastest(settings.model).itertuples(index=False, name=None):
        name, precision, images_per_second = machine
        days = round(whole * settings.steps * settings.batch_size / images_per_second / 86_400, 1)
        rows.append((Markup(f"**all, on {escape(name)}, {precision}**"), str(whole), str(days)))
    return pd.DataFrame(rows, columns=["what", "trainings", "days"], dtype=object)
