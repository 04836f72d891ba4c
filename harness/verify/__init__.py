"""`msbench verify`: the numbers of a run's record computed again from what the run kept, by other code where there is some.

`check` is one number's verdict; `figures`, `built` and `images` compute again what samples and features, the decoder built
again and saved images allow; `coverage` finds the numbers that none of them touched; `verification` runs them all.
"""
