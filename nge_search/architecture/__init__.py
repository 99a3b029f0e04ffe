"""What an architecture is: a graph."""
