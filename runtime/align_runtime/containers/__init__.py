"""Encoded images, taken apart before Pillow sees them.

Each format has a module whose `strip` walks through the parts of a file, keeps those that the pixels of the first image
need, and reads its size. So what stands beside the pixels cannot stop, slow down or blow up the decoder, and a size is
known before anything is allocated for it.
"""
