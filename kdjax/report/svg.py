"""Matplotlib figures as SVG that lives inside a page: its fonts, its colours, light or dark.

A figure is drawn in a few stand-in colours, which become the page's own (`currentColor` and CSS
variables). Text stays text. The same data gives the same bytes. No pyplot, no global state kept.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Mapping
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, PAPER = "#010203", "#fdfcfb"
ACCENT, SECOND, THIRD, FOURTH = "#0072b2", "#d55e00", "#009e73", "#cc79a7"  # Okabe and Ito

_CSS = {
    INK: "currentColor",
    PAPER: "var(--card, #fff)",
    ACCENT: f"var(--accent, {ACCENT})",
    SECOND: f"var(--second, {SECOND})",
    THIRD: f"var(--third, {THIRD})",
    FOURTH: f"var(--fourth, {FOURTH})",
}
_NAMESPACE = re.compile(r"\{[^}]*\}")
_LONG_NUMBER = re.compile(r"\d+\.\d{3,}")
_NUMERIC = ("d", "x", "y", "transform", "width", "height", "points")


@contextlib.contextmanager
def drawing():
    """Everything that makes, measures or writes a figure runs in here; also a decorator."""
    # Not what the user has set; and DejaVu, which comes with matplotlib: the same layout anywhere.
    fixed = style.context(
        [
            "default",
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "kdjax",
                "font.family": ["DejaVu Sans"],
                "font.size": 11,
                "text.usetex": False,
                "text.parse_math": False,
                "axes.unicode_minus": True,
                "axes.linewidth": 0.8,
                "path.sketch": None,
            },
        ]
    )
    with fixed, warnings.catch_warnings():
        # A name in a script that DejaVu lacks is only measured here; the browser has the glyphs.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def canvas(width: int, height: int) -> tuple[Figure, Axes]:
    """An empty chart, one unit a pixel, with a quiet frame: a base line and tick labels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.35)
    axes.tick_params(which="both", length=0, labelcolor=INK, pad=5)
    axes.grid(axis="both", color=INK, alpha=0.1, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def clean(text: str, most: int) -> str:
    """Printable and short enough to stand in a chart."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def inline(figure: Figure, *, name: str, label: str, titles: Mapping[str, str]) -> str:
    """The figure as an `<svg>` element without references to anything outside the page.

    Args:
      figure: drawn in this module's colours.
      name: prefix of the ids, so that several pictures share a page.
      label: what a screen reader says.
      titles: tooltip of each artist, by its gid.
    """
    file = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    used = set(re.findall(r"#([\w.-]+)", file.getvalue().decode())) | set(titles)

    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("}style") or child.tag.endswith("}metadata"):
                parent.remove(child)  # the style sheet would reach the whole page
    for element in root.iter():
        gid = element.get("id")
        found = {_NAMESPACE.sub("", key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({k: _attribute(k, v, name) for k, v in found.items()})
        if gid is not None and gid not in used:
            del element.attrib["id"]
        element.tag = _NAMESPACE.sub("", element.tag)
        if not (element.text or "").strip():
            element.text = None
        element.tail = None
        if gid is not None and gid in titles:
            title = ElementTree.Element("title")
            title.text = clean(titles[gid], 400)
            element.insert(0, title)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update({"class": "chart", "role": "img", "aria-label": clean(label, 400)})
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        for stand_in, css in _CSS.items():
            value = value.replace(stand_in, css)
        return value
    if key in _NUMERIC:
        value = _LONG_NUMBER.sub(lambda m: f"{float(m[0]):.2f}", value)
        return " ".join(value.split())
    return value
