"""Drawings of cells: where nodes go, and the SVG that shows them."""
