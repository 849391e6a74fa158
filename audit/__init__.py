"""The ledger: an append-only, hash-linked record of what was asked, decided, sent and answered.

Imports nothing of broker, proxy or rules. `record` is the format, `journal` the only writer,
`verify` and `query` the readers.
"""
