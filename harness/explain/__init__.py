"""`msbench explain`: every metric of a run under the conventions that the field uses, and which of them a reported number fits.

`kept`, `pairs` and `views` compute, from samples and features, from two pictures and from one; `sources` gives what is there;
`registry` names every convention and who uses it (`users.csv`); `explanation` computes them; `reported` matches numbers.
"""
