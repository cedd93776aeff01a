"""Pages that need nothing but themselves: HTML and SVG in one house style, for the report of a build and of a bench."""
