"""What can be wrong with a yaml, found without building a model or reading data.

`dynrefer validate` prints the findings; a launch stops at those that would stop the run anyway.
"""
