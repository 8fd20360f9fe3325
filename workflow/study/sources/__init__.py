"""Where data and models come from: the kinds of sources, and how each is read into rows and items."""
