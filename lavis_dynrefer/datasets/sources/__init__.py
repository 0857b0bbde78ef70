"""One reader per raw dataset: files as their own sites hand them out in, `RegionSet` out.

Nothing here needs LAVIS or torch.
"""
