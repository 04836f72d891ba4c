"""What a decoder costs: wall-clock, FLOPs, memory, parameters, and what theory says they should be.

`cost` measures a whole decoder by one protocol; `latency`, `flops` and `memory` measure one thing each; `theory` is arithmetic.
`roofline` holds times against ceilings measured here; `power` watches a GPU through NVML (`nvml` looks, `power_report` sums).
"""
