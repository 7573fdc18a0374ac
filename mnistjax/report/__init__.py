"""The page about a run."""

from mnistjax.report.fitting import fit as fit
from mnistjax.report.page import write_report as write_report
