"""Writing pages: the report of a run, an ensemble or a population, and the page to draw on.

The images of the report of a run lie in `plots/`, too.
"""

from mnistjax.report.callback import WriteReport as WriteReport
from mnistjax.report.draw_page import render_draw_page as render_draw_page
from mnistjax.report.draw_page import try_draw_page as try_draw_page
from mnistjax.report.draw_page import write_draw_page as write_draw_page
from mnistjax.report.packing import choose_dtype as choose_dtype
from mnistjax.report.packing import round_weights as round_weights
from mnistjax.report.page import write_report as write_report
from mnistjax.report.sweep_page import write_sweep_report as write_sweep_report
