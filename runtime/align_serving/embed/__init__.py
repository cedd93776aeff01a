"""`align-embed`: images or texts of any number into files of embeddings, by a resumable job.

::

    command   → inputs (what to embed) → job (shard after shard) → output (files and ledger)
    inputs    opens a source for each input: image_sources, rows, parquet_rows
    output    the folder: shards, errors.jsonl, and the ledger that says which shards count
    reading   reads such a folder
"""
