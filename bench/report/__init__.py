"""A result file as a page for people: figures, what they say, and every number behind them."""

from bench.report.figure import Figure, Table
from bench.report.page import build_page, figures_of

__all__ = ["Figure", "Table", "build_page", "figures_of"]
