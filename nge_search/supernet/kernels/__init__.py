"""The large operations of a cell, by the backend that computes them best where the data are."""
