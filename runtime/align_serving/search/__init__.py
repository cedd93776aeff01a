"""`align-search`: finds the images or texts of a folder of embeddings that are nearest to a text or an image.

::

    building  → index.json, rows.bin, ids, contents and, by option, faiss's graph or lists, beside the embeddings
    index     opens them, and finds the nearest rows: exact over memory-mapped blocks, or approximate and rescored
    sources   which image or text a row stands for; thumbnails makes small images of it
    command   `align-search find | index | serve`; sheet writes the page without a server, web the one with
"""
