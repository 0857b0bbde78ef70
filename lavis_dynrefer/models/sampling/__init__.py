"""Reading feature maps between their cells: RoI-Align and deformable sampling."""
