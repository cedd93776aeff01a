"""Self-contained HTML and SVG pages in one style, for the results of align-bench and the report of an export."""
