"""Parts of results: rows of json, and what comes from the user's own file."""
