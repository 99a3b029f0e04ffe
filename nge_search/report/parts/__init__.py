"""What the pages of a report are made of: charts, tables, figures, text."""
