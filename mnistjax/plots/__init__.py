"""Plots: each function returns a matplotlib figure, and `render_png` renders one as a PNG file.

No display is needed, and matplotlib's global settings are not changed. The plots are legible in
black and white and for color-blind readers: markers, dashes and hatches repeat what colors show.
"""

from mnistjax.plots.charts import class_distribution as class_distribution
from mnistjax.plots.charts import comparison as comparison
from mnistjax.plots.charts import confusion as confusion
from mnistjax.plots.charts import learning_curves as learning_curves
from mnistjax.plots.charts import projection as projection
from mnistjax.plots.charts import reliability as reliability
from mnistjax.plots.charts import robustness as robustness
from mnistjax.plots.images import augmentation as augmentation
from mnistjax.plots.images import filters as filters
from mnistjax.plots.images import mistakes as mistakes
from mnistjax.plots.images import saliency as saliency
from mnistjax.plots.images import samples as samples
from mnistjax.plots.seeds import seeds as seeds
from mnistjax.plots.style import render_png as render_png
from mnistjax.plots.sweeps import sweep as sweep
