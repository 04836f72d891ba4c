"""How sure a figure is, and what may be said of a difference. Pure numpy and scipy; knows no other part of msbench.

`estimate` holds what every estimate offers (interval, p-value); `paired` makes them from per-image values, `sets` from the
deletions of a whole-set metric. `rfid` and `kid` define those two metrics, value and deletions alike; `extrapolate` goes to
infinitely many images; `verdict` corrects for many comparisons and puts the outcome into words.
"""
