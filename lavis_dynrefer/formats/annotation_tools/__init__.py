"""The files of annotation tools, read into COCO's layout, so that every door reads them."""
