"""Channels of any network: which belong together, which a mask cut off, and the network without them."""
