from __future__ import annotations

from lavis_dynrefer.lab.policies.policy_plot import scale_plot


def test_every_policy_has_its_own_row_over_all_scales():
    plot = scale_plot({"a world, hash": "0.1:99% 0.2:1%", "a world, oracle": "0.2:30% 1:70%"})

    assert list(plot.heads) == ["policy", "0.1", "0.2", "1"]
    assert plot.rows == [("a world, hash", "99", "1", "0"), ("a world, oracle", "0", "30", "70")]
    heights = [[bar.get_height() for bar in ax.patches] for ax in plot.figure.axes]
    assert heights == [[99, 1, 0], [0, 30, 70]]
    assert "a world, oracle: 1" in plot.alt
