"""Speed of every stage beside a plain reference path, in turns in one process."""
