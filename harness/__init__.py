"""The harness: one protocol that runs any decoder and measures what it costs and what it gives back.

`decoder` is the contract, `registry` finds decoders by name, `runner` drives one run; `data`, `metrics`, `cost`, `stats` and
`report` hold one subject each and know nothing of each other. Nothing here knows a decoder's inside.
"""
