"""Architecture search: the bilevel loop, the derivation of a cell, and what they need."""
