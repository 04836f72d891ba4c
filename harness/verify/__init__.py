"""`msbench verify`: every number of a run's record computed again from what the run kept, by other code where there is some.

`check` is one number's verdict, `opened` a run as verification reads it; `samples`, `features`, `intervals`, `built`, `hashes`
and `images` compute again what each of them can, by `formulas` and `pixels`; `coverage` finds the numbers that none of them
touched; `verification` runs them all.
"""
