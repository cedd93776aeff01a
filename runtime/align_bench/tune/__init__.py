"""``align-bench tune``: the fastest settings of a bundle on this machine, above an accuracy floor."""
