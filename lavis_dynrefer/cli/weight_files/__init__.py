"""Commands about weight files: `dynrefer download`, `export` and `weights`."""
