"""`align-search`: finds the images or texts of a folder of embeddings that are nearest to a text or an image.

::

    building  → the files of an index, see index_files, beside the embeddings
    index     opens them, and finds the nearest rows: exact over memory-mapped blocks, or approximate and rescored
    sources   which text or image a row stands for; image_places reads an image, thumbnails makes a small one of it
    command   `align-search find | index | serve`; sheet writes the page without a server, web the one with
"""
