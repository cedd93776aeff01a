"""Tar and zip files, read in place and within bounds: nothing is extracted, so the name of a member cannot do harm.

`align_runtime.archives.opened` opens one; calibration and bulk embedding read their images through it.
"""
