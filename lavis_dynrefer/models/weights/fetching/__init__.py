"""Published files: downloaded, reduced, kept, and where they lie on this machine."""
