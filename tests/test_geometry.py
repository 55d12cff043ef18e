"""The samples of chapter 6, on tables made by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lth.book import claims, estimates, geometry
from lth.book.geometry import Ladders, Ruler
from lth.book.presets import parameters

RULER = Ruler(np.array([4.0, 5.0, 6.0, 5.0]), 3, 0.25)  # ε = √(2/3), matching up to 5.82
EPSILON = math.sqrt(2 / 3)


def test_the_ruler_is_drawn_again_with_the_networks():
    assert RULER.scale([0, 1, 2]) == pytest.approx((EPSILON, 5 + EPSILON))
    drawn = {RULER.scale(units) for units in ([0, 0, 1], [2, 1, 0], [1, 1, 1], [0, 2, 2])}
    assert len(drawn) > 1 and RULER.scale([0, 0, 1]) == RULER.scale([0, 0, 1])
    assert Ruler(np.array([5.0, 5.0]), 2, 0.25).scale([0, 1]) == (0.25, 5.25)


def test_multiples_of_epsilon():
    found = RULER.multiples([1.0, 2.0, 3.0])
    assert found.value == pytest.approx(2 / EPSILON) and found.n == 3 and found.low < found.value < found.high
    assert RULER.multiples([]) == RULER.multiples([1.0, math.nan, 3.0]) == []
    places = np.array([[0.0, 3.0], [0.0, 5.0], [6.0, 1.0]])  # means 2 and 3
    assert RULER.highest(places).value == pytest.approx(3 / EPSILON) and RULER.highest(places[:, :0]) == []


def ladders(errors: dict[int, list[float]], heights: dict[int, list[float]]) -> Ladders:
    """The same numbers for all three networks, through tables."""
    rows = [(step, r, level, x) for step, some in errors.items() for r in range(3) for level, x in enumerate(some)]
    legs = [(step, r, leg, x) for step, some in heights.items() for r in range(3) for leg, x in enumerate(some)]
    return Ladders.of(
        RULER,
        pd.DataFrame(rows, columns=["rewind", "network", "level", "error"]),
        pd.DataFrame(legs, columns=["rewind", "network", "leg", "barrier"]),
    )


MIXED = ladders({0: [5, 5, 9, 9], 12: [5, 5.5, 5.8, 5.9]}, {0: [0, 2, 0.1], 12: [0, 0.5, 3]})


def test_levels_that_match():
    assert MIXED.matching(12) == [1, 2] and MIXED.matching(0) == [1]
    assert MIXED.longer(12, 0).value == 1 and MIXED.longer(0, 12).value == -1


def test_pairs_that_match_and_are_connected():
    """Pairs of sparse levels: at step 0 neither matches, one is connected; at 12 the first matches and is connected."""
    good, joined = MIXED.corners([0, 1, 2])
    assert good.tolist() == [False, False, True, False] and joined.tolist() == [False, True, True, False]
    assert MIXED.agreement().value == pytest.approx(100 * (1 - 1 / 3))
    assert MIXED.connected(matching=True).value == 100
    assert MIXED.connected(matching=False).value == pytest.approx(100 / 3)


@pytest.mark.parametrize("error, known", [(5.0, True), (9.0, False)])
def test_where_all_pairs_are_of_one_kind(error, known):
    one_kind = ladders({0: [error] * 4, 12: [error] * 4}, {0: [0] * 3, 12: [0] * 3})
    assert one_kind.agreement() == []
    assert (one_kind.connected(matching=known).value, one_kind.connected(matching=not known)) == (100, [])


def test_shares_apart():
    good, joined = np.array([True, True, False, False]), np.array([True, False, False, False])
    assert geometry.apart(good, joined) == 50 and geometry.apart(good & False, joined) == 0


def prunings(allowed: list[float], matching: list[float], way: str = "random") -> pd.DataFrame:
    networks = np.arange(len(allowed)) % 3
    return pd.DataFrame({"network": networks, "way": way, "allowed": allowed, "matching": matching})


def test_what_the_formula_foresees():
    rows = prunings([1, 1, 1, 0, 0, 0, math.nan], [1, 1, 0, 0, 1, 0, 1])
    noise = prunings([1, 0, 1], [0, 1, 0], "magnitude")
    assert geometry.formula(RULER, pd.concat([rows, noise])).value == pytest.approx(100 * (2 / 3 - 1 / 3))
    for unknown in (rows[rows.network != 1], rows[rows.allowed == 1], noise):
        assert geometry.formula(RULER, unknown) == []


def curve(network: int, level: int, end: float, resolved: bool = True) -> pd.DataFrame:
    """From 1 at the distance 0 to `end` at the distance 1."""
    told = {"network": network, "probed": level, "resolved": resolved}
    return pd.DataFrame({**told, "distance": [0.0, 1.0], "share": [1.0, end]})


CURVES = pd.concat([curve(0, 2, 0.4), curve(1, 2, 0.4, False), curve(0, 4, 0.2), curve(1, 4, 0.2)])


def test_above_the_curve():
    """Network 0: at level 2 matching ends between 0.8 and 0.9, at a distance where 0.55 is allowed; network 1: at 4
    nothing matches, so that it ends between 0 and 0.5, where 0.6 is allowed. Where nothing fails nothing is known."""
    columns = ["way", "network", "level", "share", "distance", "matching"]
    rows = [
        ("magnitude", 0, 2, 0.5, 0.1, 1), ("magnitude", 0, 2, 0.8, 0.5, 1), ("magnitude", 0, 2, 0.9, 1, 0),
        ("magnitude", 0, 4, 0.5, 1, 1), ("magnitude", 1, 2, 0.5, 1, 0), ("magnitude", 1, 4, 0.5, 1, 0),
        ("random", 0, 2, 0.5, 0.1, 1),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    assert geometry.above_curve(table, CURVES, "magnitude") == pytest.approx([0.85 - 0.55, 0.25 - 0.6])
    assert geometry.above_curve(table[table.network == 1], CURVES, "magnitude") == pytest.approx([0.25 - 0.6])
    assert geometry.above_curve(table, CURVES, "random") == []


def test_how_much_sharper():
    assert geometry.sharper(CURVES, [0.5, 0.5], 2, 4) == pytest.approx([0.7 - 0.6, math.nan], nan_ok=True)


def test_powers_of_ten():
    rows = [(0, 2, "a", 100.0), (0, 2, "b", 1.0), (0, 4, "a", 1.0), (0, 4, "b", -3.0), (1, 2, "a", 1), (1, 2, "b", 1e3)]
    table = pd.DataFrame(rows, columns=["network", "level", "pruning", "bend"])
    assert geometry.powers(table, "bend", "a", "b") == pytest.approx([(2 + 6) / 2, -3])


def test_more_small_weights():
    rows = [("x", 0, 2, 30.0), ("x", 0, 2, 30.0), ("x", 0, 4, 50.0), ("y", 0, 2, 10.0), ("y", 0, 4, 20.0)]
    table = pd.DataFrame(rows, columns=["after", "network", "level", "small"])
    assert geometry.more_small(table, "x", "y") == pytest.approx([25])


def test_arrival_at_the_last_density():
    rows = [(0, 0, 100, 1), (0, 1, 30, 2), (0, 2, 10.05, 3), (0, 3, 10, 4), (1, 0, 100, 5), (1, 1, 10, 6)]
    table = pd.DataFrame(rows, columns=["network", "level", "left", "error"])
    assert geometry.arrival(table, 10).to_numpy().tolist() == [[2, 3], [1, 6]]


def test_claims_that_depend_on_the_statistics():
    low, high, limit = [0.0, 0.1, 0.2], [50.0, 51.0, 52.0], claims.ledger()["P1.late"].limits
    assert limit[1] < 50
    samples = {"P1.late": estimates.mean(low), "P1.zero": []}
    other = {"P1.late": estimates.mean(high), "P1.zero": []}
    table = geometry.judged_twice(samples, other, parameters("lcs_geometry", "quick").model_dump())
    assert table.claim.tolist() == ["P1.late", "P1.zero"] and table["the same"].tolist() == ["**no**", "yes"]
    assert table["gathered anew"][0].startswith("contradicted: 51")
