"""Answers of an evaluation: kept while they are made, and graded, at once or later."""
