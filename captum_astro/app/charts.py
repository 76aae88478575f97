"""The page's table of methods and its chart of curves, as HTML without scripts; all text in it is escaped."""

from __future__ import annotations

import base64
import io
from html import escape

from captum_astro.app.explained import Explained
from captum_astro.support.report import MethodsReport

_SIGNS = {"exact": "✓", "approximate": "≈", "refused": "✗", "failed": "!"}


def verdict(report: MethodsReport) -> str:
    """A table of what `captum_astro.check_methods` found, as HTML."""
    rows = [
        f"<tr><td>{_SIGNS[one.status]} {escape(one.method)}</td><td>{one.status}</td>"
        f"<td>{'' if one.cost is None else f'{one.cost:.1f}'}</td><td>{escape(one.reason)}</td></tr>"
        for one in report.outcomes
    ]
    size = " x ".join(str(side) for side in report.image[2:])
    head = "<tr><th>method</th><th>status</th><th>cost</th><th></th></tr>"
    return (
        f'<div class="ca-verdict"><p>{escape(report.model)}, {size} pixels. Cost 1 is a forward and a backward pass, '
        f'{report.seconds:.2g} s.</p><table class="ca-methods">{head}{"".join(rows)}</table></div>'
    )


def curve_chart(explained: Explained) -> str:
    """The deletion and insertion curves of all maps, as HTML with a picture in it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6 + 0.1 * len(explained.results)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = ("Deletion: the most important pixels go first", "Insertion: the most important pixels come first")
    for number, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        for result, curve in zip(explained.results, explained.curves, strict=True):
            values = curve[number].tolist()
            label = f"{result.options['method']}, {result.target.short}: {curve.areas[number]:.2f}"
            style = "-" if result.target is explained.results[0].target else "--"
            ax.plot([100 * step / (len(values) - 1) for step in range(len(values))], values, style, label=label)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(f"pixels {('removed', 'inserted')[number]}, %")
        ax.grid(alpha=0.3)
        legend = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "ncols": 2, "frameon": False}
        ax.legend(fontsize=8, title="area under the curve", title_fontsize=8, **legend)
    axes[0].set(ylim=(-0.02, 1.02), ylabel="probability of the class")
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=130)
    data = base64.b64encode(held.getvalue()).decode()
    return f'<div class="ca-curves"><img alt="Deletion and insertion curves" src="data:image/png;base64,{data}"></div>'
