"""Every plot, as a function that returns a matplotlib figure; `render_png` makes a file of one.

They need no display, leave matplotlib's settings as they are, and can be read in black and white
and by the colour-blind: what colour tells, a marker, a dash or a hatch tells as well.
"""

from mnistjax.plots.charts import (
    plot_class_distribution,
    plot_comparison,
    plot_confusion,
    plot_embedding,
    plot_learning_curves,
    plot_reliability,
    plot_robustness,
)
from mnistjax.plots.images import (
    plot_augmentation,
    plot_filters,
    plot_mistakes,
    plot_saliency,
    plot_samples,
)
from mnistjax.plots.style import render_png

__all__ = [
    "plot_augmentation",
    "plot_class_distribution",
    "plot_comparison",
    "plot_confusion",
    "plot_embedding",
    "plot_filters",
    "plot_learning_curves",
    "plot_mistakes",
    "plot_reliability",
    "plot_robustness",
    "plot_saliency",
    "plot_samples",
    "render_png",
]
