"""The import hook. `lavis_dynrefer_autoload` is installed twice: here, and beside the package."""
