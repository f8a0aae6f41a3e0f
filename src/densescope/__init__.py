"""Which checkpoint of a self-supervised run has the best patch features, and why.

The names are those of ``__init__.pyi``; what stands behind one, PyTorch above all, is loaded when
it is first asked for, so that the command answers at once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
