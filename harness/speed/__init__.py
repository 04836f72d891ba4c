"""`msbench speed`: decoders timed side by side, each in a live process of its own, in turns.

`protocol` says what is measured and how, `worker` is the process that measures, `client` its handle, `turns` the alternation,
`cells` the figures made of it, `record` the document, `run` the whole.
"""
