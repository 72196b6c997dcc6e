import re

from cli.plot import loss_svg

LOSSES = [(1, 2.0, None), (2, 1.5, 1.8), (3, 0.5, 1.2)]


def test_a_plot_is_a_drawing_of_both_curves() -> None:
    """Each curve is one line through its measured steps; the same losses give the same bytes."""
    drawn = loss_svg(LOSSES, "faq <run>")
    assert drawn == loss_svg(LOSSES, "faq <run>")
    assert drawn.startswith("<svg ")
    assert [3, 2] == [len(points.split()) for points in re.findall(r'<polyline points="([^"]+)"', drawn)]
    assert ">faq &lt;run&gt;<" in drawn


def test_a_run_without_losses_has_a_drawing_too() -> None:
    """It says that nothing was measured yet."""
    assert ">no losses yet<" in loss_svg([], "faq")
