"""The options of `align-export`, a module for each group; nothing is decided here."""
