"""Writing the report of a run, an ensemble or a population: `report.html`.

The images of the report of a run lie in `plots/`, too.
"""

from mnistjax.report.callback import WriteReport as WriteReport
from mnistjax.report.page import write_report as write_report
from mnistjax.report.sweep_page import write_sweep_report as write_sweep_report
