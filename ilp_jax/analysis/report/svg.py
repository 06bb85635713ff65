"""Charts as SVG for a page: drawn here, so that the page runs no chart library."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import altair as alt
import vl_convert

from ilp_jax.analysis.report.charts import themed

_NAMESPACE = "http://www.w3.org/2000/svg"
_ELEMENTS = {"svg", "g", "path", "line", "rect", "circle", "text", "tspan", "defs", "clipPath"}
_ATTRIBUTE = re.compile(
    "role|aria-[a-z]+|class|id|d|x|y|x1|x2|y1|y2|r|cx|cy|dx|dy|width|height|viewBox|transform|"
    "fill|fill-opacity|stroke|stroke-(width|dasharray|dashoffset|opacity|miterlimit|linecap|"
    "linejoin)|opacity|text-anchor|font-(family|size|weight|style)|clip-path|pointer-events|"
    "display"
)


def svg(chart: alt.TopLevelMixin, name: str) -> str:
    """Draws a chart.

    What is no plain drawing (scripts, links, styles, anything not known here) is left out,
    so that the result may stand in a page as it is, whatever the data's labels say.

    Args:
      chart: the chart.
      name: letters and digits that no other chart of the page has.

    Returns:
      An ``<svg>`` element of its natural width and height.
    """
    ElementTree.register_namespace("", _NAMESPACE)
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(themed(chart)))
    _keep_drawing(root, name)
    root.set("class", "chart")
    return ElementTree.tostring(root, encoding="unicode")


def _keep_drawing(element: ElementTree.Element, name: str) -> None:
    for key, value in list(element.attrib.items()):
        if not _ATTRIBUTE.fullmatch(key):
            del element.attrib[key]
        elif key == "id":
            element.set(key, f"{name}-{value}")
        elif "url(" in value:  # only to this chart's own parts
            element.set(key, re.sub(r"url\(\W*([\w-]+)\W*\)", rf"url(#{name}-\1)", value))
    for child in list(element):
        if child.tag.removeprefix(f"{{{_NAMESPACE}}}") in _ELEMENTS:
            _keep_drawing(child, name)
        else:
            element.remove(child)
