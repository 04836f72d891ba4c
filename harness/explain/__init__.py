"""`msbench explain`: every metric of a run under the conventions that the field uses, and which of them a reported number fits.

`convention` is one entry; `kept`, `pairs` and `views` compute, from samples and features, from two pictures and from one;
`registry` names them and who uses them; `sources` gives the pictures; `explanation` runs them all; `reported` matches numbers.
"""
