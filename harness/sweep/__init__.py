"""Quality and cost over a grid of decoders, numbers of scales K and numbers of steps N, resumable cell by cell.

`plan` says what is asked for and which cells there are, `weights` which checkpoint fits a cell, `cells` measures one, `sweep`
runs them all, `table` makes the one table, `plots` draws what it can feed.
"""
