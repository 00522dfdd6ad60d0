"""autosparse: masks for networks before they are trained, and the pipeline that learns to choose them."""

__version__ = "0.1.0"
