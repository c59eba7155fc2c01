"""What `bash tests/gpu/run` runs: all that needs a GPU, on a machine that has one and no network, in ten minutes.

Decisions:
- The most valuable comes first. Each part is a child with a time limit of its own, so the others go on whatever
  becomes of one; the JSON file and the page are written again after each.
- The parent needs nothing but Python, so that there is a page even where nothing else can be imported.
- Without a GPU the parts are rehearsed, smaller, on the CPU and on the pretend device, and say what they left out. A
  rehearsal passes nothing.
"""
