"""Bases that are made ready before they are tuned: put into another basis, readers refitted to the channels that stay."""
