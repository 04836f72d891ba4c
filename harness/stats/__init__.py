"""How sure a figure is, and what may be said of a difference. Pure numpy and scipy; knows no other part of msbench.

`estimate` holds what every estimate offers (interval, p-value); `paired` makes them from per-image values, `sets` from the
deletions of a whole-set metric, which `rfid` and `kid` compute; `extrapolate` goes to infinitely many images; `multiple`
corrects for many comparisons and `verdict` puts the outcome into words.
"""
