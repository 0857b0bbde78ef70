"""How the model chooses among the views of a region."""
