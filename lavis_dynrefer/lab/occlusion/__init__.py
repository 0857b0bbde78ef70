"""What masks are worth: masks with errors, regions by how much of them is visible, examples."""
