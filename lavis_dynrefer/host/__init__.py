"""LAVIS as the host: what it needs to import, and how it knows the plugin."""
