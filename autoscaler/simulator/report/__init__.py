"""Reports for people: the numbers of a run in words, tables and one self-contained page.

Rules of this package: everything shown comes from `report.json` and the timeline in the same directory, so that a page can
be made again from them (`autoscaler report`). Nothing is decided or simulated here. Texts written by people (names, reasons)
are escaped where they enter a page, and nowhere before.
"""
