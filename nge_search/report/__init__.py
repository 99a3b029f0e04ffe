"""What a run shows: cell drawings that a paper can print, and the self-contained HTML report."""

from nge_search.report.drawing.figure import draw_cell, draw_cells, drawing_rgb, save_drawings, save_sheet
from nge_search.report.html import write_report

__all__ = ["draw_cell", "draw_cells", "drawing_rgb", "save_drawings", "save_sheet", "write_report"]
