"""ganlab: a small core that trains GANs, and plugins for all else.

The public names are importable from here; `__init__.pyi` lists them. They are imported on first use, so that
`import ganlab` (and with it `ganlab --help` and a plugin's import of `hookimpl`) does not load torch.
"""

from __future__ import annotations

import lazy_loader

from ganlab import _moved

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_moved.install()
