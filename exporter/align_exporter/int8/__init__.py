"""INT8 graphs: where numbers are quantised, with which scales, and whether that is right and pays."""
