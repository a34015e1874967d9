"""SVG figures: grouped bars, and curves."""

import math
from html import escape

BAR, GAP, LABEL, WIDTH = 18, 6, 130, 420
COLOURS = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2"]


def document(width, height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def text(x, y, words, **more):
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{more}>{escape(words)}</text>'


def bars(title, groups):
    """Returns a group of bars for each workload. The longest bar of a group has the full width."""
    parts, y = [text(10, 20, title, font_size=14)], 36
    for group, figures in groups.items():
        y += 12
        parts.append(text(10, y, group, font_weight="bold"))
        y += 8
        longest = max(figures.values())
        for label, figure in figures.items():
            colour = COLOURS[1] if label.startswith("dotproxy") else COLOURS[0]
            length = figure / longest * WIDTH
            parts.append(text(LABEL, y + BAR - 5, label, text_anchor="end"))
            parts.append(f'<rect x="{LABEL + 6}" y="{y}" width="{length:.1f}" height="{BAR}" '
                         f'fill="{colour}"/>')
            parts.append(text(LABEL + 12 + length, y + BAR - 5, f"{figure:.2f}"))
            y += BAR + GAP
    return document(LABEL + WIDTH + 70, y + 10, parts)


def curves(title, series):
    """Returns curves on one logarithmic scale; each series has a value for each of its
    positions."""
    left, top, width, height = 50, 40, 460, 260
    places = sorted({place for figures in series.values() for place in figures})
    highest = max(figure for figures in series.values() for figure in figures.values())
    across = lambda place: left + width * math.log(place / places[0]) / math.log(places[-1] / places[0])
    down = lambda figure: top + height * (1 - figure / highest)
    parts = [text(10, 20, title, font_size=14)]
    for place in places:
        parts.append(text(across(place), top + height + 18, f"{place:,}", text_anchor="middle"))
    for part in range(5):
        figure = highest * part / 4
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{down(figure):.1f}" y2="{down(figure):.1f}" '
                     'stroke="#ddd"/>')
        parts.append(text(left - 6, down(figure) + 4, f"{figure:.1f}", text_anchor="end"))
    for nth, (label, figures) in enumerate(series.items()):
        colour = COLOURS[nth % len(COLOURS)]
        points = " ".join(f"{across(place):.1f},{down(figure):.1f}" for place, figure in figures.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + height + 42 + 18 * nth
        parts.append(f'<rect x="{left}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(text(left + 18, y, label))
    return document(left + width + 40, top + height + 50 + 18 * len(series), parts)
