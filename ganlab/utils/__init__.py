"""General helpers that know nothing of GANs: errors, files, caches, random streams, processes, memory.

Every other package may import this one. May import: nothing of ganlab.
"""
