"""The laboratory's own program: install, serve, test and publish the notebooks. `jupyter/lab` is its entry."""
