"""The report of a build: ``report.html`` for people and ``report.json`` for machines, from the same record."""
