"""Reports for people: the numbers of a run in words, tables and one self-contained page.

Rules of this package: everything shown comes from `report.json` and the time line beside it, so that a page can
be made again from them (`autoscaler report`). Nothing is decided or simulated here. Text of people (names,
reasons) is escaped where it enters a page, and nowhere before.
"""
