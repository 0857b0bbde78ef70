"""What the quickstart teaches: objects that no other scene shows, as a dataset of one's own."""
