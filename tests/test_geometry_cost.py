"""Chapter 6's cost, reckoned by hand."""

from __future__ import annotations

from lth.book import geometry_cost, speed
from lth.book.presets import parameters


def test_trainings_of_the_paper():
    full = parameters("lcs_geometry", "paper")
    cost = geometry_cost.trainings(full).set_index("what").trainings
    trained = 62_400 * 128
    assert cost["dense networks"] == 20 and cost["ladders to the rewind steps"] == 4 * 12 * 3
    assert cost["products with the Hessian"] == round(4 * 4 * 4 * 512 * 50_000 * 2 / trained)
    evaluated = 4 * 11 * (12 * 4 + 13**2 / 2) * 2 * 10_000  # both kinds of statistics
    assert cost["errors along lines"] == round(evaluated / 3 / trained)
    table = geometry_cost.on_machines(cost.reset_index(), full)
    machines = speed.fastest("resnet20")
    assert len(table) == len(cost) + len(machines) and table.days[: len(cost)].eq("").all()
    days = cost.sum() * trained / machines["images per second"].iloc[-1] / 86_400
    assert table.days.iloc[-1] == str(round(days, 1)) and table.trainings.iloc[-1] == str(cost.sum())
