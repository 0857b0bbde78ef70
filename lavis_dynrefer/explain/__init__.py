"""Why an answer: the views behind it, drawn and as a page."""
