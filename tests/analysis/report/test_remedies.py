"""Curves of arms against updates: every arm is named, legibly; one budget alone is no curve."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.report.remedies import apart, curves_chart


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12), st.floats(0.1, 30))
def test_labels_stand_apart_in_the_order_of_their_values(values, least):
    places = apart(values, least)
    order = np.argsort(values, kind="stable")
    gaps = np.diff(np.array(places)[order])
    assert (gaps >= least - 1e-9).all()
    assert all(place >= value for place, value in zip(places, values, strict=True))
    far = [1000.0 * i for i in range(len(values))]
    assert apart(far, least) == far


def test_every_arm_has_a_line_and_a_name():
    curves = [
        {"arm": arm, "steps": steps, **{key: {"value": 9.0} for key in ("recovered", "lost")}}
        for arm in ("none", "left_side_forgetting")
        for steps in (100.0, 200.0)
    ]
    chart = curves_chart(curves, 600).to_dict()
    assert len(chart["vconcat"]) == 2
    for panel in chart["vconcat"]:
        sources = [layer.get("data", panel.get("data"))["name"] for layer in panel["layer"]]
        values = [chart["datasets"][name] for name in sources]
        lines, dots, names = (json.loads(v) if isinstance(v, str) else v for v in values)
        assert len(lines) == len(dots) == 4
        assert [one["arm"] for one in names] == ["none", "left side forgetting"]
        assert {one["updates"] for one in names} == {200.0}
    assert curves_chart([], 600) is None
