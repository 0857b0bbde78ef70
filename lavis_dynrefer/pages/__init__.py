"""Html pages and drawings of regions, for every product that shows them."""
