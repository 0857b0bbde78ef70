"""One reader per raw dataset: published files in, `RegionSet` out. Does not import LAVIS.

All readers take the paths of the annotation files and then:

    images    folder of the images
    name      protocol id; by default that of the whole file
    split     name of the one split, or `splits`: which of several
    stores    split name -> where its records are kept; by default in memory

They raise a `DatasetError` if a file is missing or invalid, or if no region is usable.
"""
