"""What a decoder costs: wall-clock, FLOPs, memory, energy, parameters, and what theory says they should be.

`cost` measures a whole decoder by one protocol; `latency`, `flops`, `memory` and `power` measure one thing each; `load` says
what else the machine did; `modes` are ways to run a decoder; `attempt` is the guard around all of it. `roofline` holds times
against ceilings measured here; `theory` is arithmetic.
"""
