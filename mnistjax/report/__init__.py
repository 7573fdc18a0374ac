"""Writing the report of a run: `report.html`, and its images as files in `plots/`."""

from mnistjax.report.callback import WriteReport as WriteReport
from mnistjax.report.page import write_report as write_report
