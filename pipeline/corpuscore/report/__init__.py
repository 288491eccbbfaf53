"""What people read when a run has ended: one execution, from corpus to table.

summary.py   the facts, as data and as a screen of text
page.py      the same and more as a page that stands alone; page.html is its template
drawing.py   its pictures, as SVG
queries.py   SQL to go on with
"""

from corpuscore.report.page import page_of
from corpuscore.report.summary import ObjectLine, RejectLine, Report, Strongest

__all__ = ["ObjectLine", "RejectLine", "Report", "Strongest", "page_of"]
